"""Scalars of a run on disk: metrics.jsonl and timing.jsonl, one JSON object per line, and TensorBoard curves."""
import contextlib
import json
import time

import jax
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from vmamba_jax.core import files
from vmamba_jax.core.run_folder import Mirror, RemotePath, run_folder
from vmamba_jax.training.run import lock

FILE = "metrics.jsonl"
TIMING = "timing.jsonl"
FLUSH_EVERY = 10  # seconds between two flushes of TensorBoard's events to the disk
UPLOAD_EVERY = 30  # seconds between two writes of the same objects; Google Cloud Storage allows one a second


class _Events(EventsWriter):
    """An event file that is closed even if its last events cannot be written."""

    def close(self):
        try:
            super().close()
        finally:
            self._py_recordio_writer.close()


class Writer:
    """Writes `<workdir>/metrics.jsonl`, `<workdir>/timing.jsonl` and TensorBoard events; only the first of several processes writes.

    A workdir at a URL gets whole objects every `UPLOAD_EVERY` seconds, at `flush` and at the end.

    Lines of steps after `step`, written by a run that was stopped between two checkpoints, are removed, so that a resumed run produces the
    same metrics.jsonl as an uninterrupted one. Its values must therefore not depend on the clock; those go to `time`.

    Args:
        workdir: the run's folder, created if absent.
        step: the step from which a run resumes.
        tensorboard: also write `<workdir>/tensorboard/`.
    """

    def __init__(self, workdir, step=0, tensorboard=True):
        self.path = run_folder(workdir).absolute() / FILE
        self._files, self._events, self._flushed, self._mirror, self._uploaded = {}, None, time.monotonic(), None, time.monotonic()
        if jax.process_index() == 0:
            folder = self.path.parent
            if isinstance(folder, RemotePath):
                self._mirror = Mirror(folder, (FILE, TIMING))
                folder = self._mirror.local
            folder.mkdir(parents=True, exist_ok=True)
            for name in (FILE, TIMING):
                path = folder / name
                _cut(path, step)
                self._files[name] = open(path, "a", encoding="utf-8")
            if tensorboard:
                self._events = _events(folder / "tensorboard", step + 1)

    def write(self, step, values):
        """Writes and flushes one line of scalars. values: {name: number}, without a name "step"."""
        self._line(FILE, step, values)

    def time(self, step, values):
        """Writes a line of timing.jsonl: scalars that depend on the clock. values: as of `write`."""
        self._line(TIMING, step, values)

    def _line(self, name, step, values):
        if "step" in values:
            raise ValueError(f"values with step={values['step']!r}: expected no 'step', which is the line's own field")
        values = {key: _plain(key, value) for key, value in values.items()}
        if name in self._files:
            self._files[name].write(json.dumps({"step": int(step), **values}) + "\n")
            self._files[name].flush()
        if self._events is not None:
            for key, value in values.items():
                self._events.write_event(Event(step=int(step), wall_time=time.time(), summary=summary.scalar(key, value)))
            if time.monotonic() - self._flushed >= FLUSH_EVERY:
                self._events.flush()
                self._flushed = time.monotonic()
        if self._mirror is not None and time.monotonic() - self._uploaded >= UPLOAD_EVERY:
            self.flush()

    def flush(self):
        """Uploads the lines so far to a workdir at a URL: before a checkpoint, so that a run resumed from it has its lines. Nothing elsewhere."""
        if self._mirror is not None:
            lock.check(self.path.parent)
            if self._events is not None:
                self._events.flush()
            self._mirror.upload()
            self._uploaded = time.monotonic()

    def close(self):
        """Closes all files. Raises OSError if what is left cannot be written, after closing the others."""
        with contextlib.ExitStack() as stack:
            if self._mirror is not None:
                stack.callback(self._mirror.close)
                stack.callback(self._upload_last)
            for file in (*self._files.values(), *([] if self._events is None else [self._events])):
                stack.callback(file.close)
            self._files, self._events = {}, None

    def _upload_last(self):
        lock.check(self.path.parent)
        self._mirror.upload()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def _events(folder, step):
    """A writer of TensorBoard events that hides those of `step` and later steps.

    `tensorboardX.SummaryWriter` writes in a thread, which a full disk ends; its queue then blocks the run without an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = _Events(str(folder / "events"))
    events.write_event(Event(step=step, wall_time=time.time(), file_version="brain.Event:2"))
    events.write_event(Event(step=step, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))
    events.flush()
    return events


def read_metrics(path):
    """The lines of a metrics.jsonl as a list of dicts, without a last line that a crash left incomplete.

    Args:
        path: the file, or its folder.

    Raises:
        ValueError: any other line is not a JSON object with a number "step"; the message names the line.
    """
    path = run_folder(path)
    return files.read_json_lines(path / FILE if path.is_dir() else path, number="step")


def _cut(path, step):
    """Removes the lines of later steps; the others keep their bytes."""
    if not path.exists():
        return
    rows = files.read_json_lines(path, number="step")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    with files.atomic(path) as part:
        part.write_text("".join(line for line, row in zip(lines, rows, strict=False) if row["step"] <= step), encoding="utf-8")


def _plain(name, value):
    """A Python number."""
    if getattr(value, "shape", ()) != ():
        raise TypeError(f"{name}=array of shape {value.shape}: expected a scalar")
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r}: expected a number")
    return value
