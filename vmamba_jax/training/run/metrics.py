"""Scalars of a run on disk: metrics.jsonl and timing.jsonl, one JSON object a line, and TensorBoard curves."""
import json
import pathlib

import jax
from tensorboardX import SummaryWriter

from vmamba_jax.core import files

FILE = "metrics.jsonl"
TIMING = "timing.jsonl"


class Writer:
    """Writes `<workdir>/metrics.jsonl`, `<workdir>/timing.jsonl` and TensorBoard events; only the first process of several writes.

    step: the step a run continues from. Lines of later steps, left by a run that was stopped between two checkpoints, are cut, so that a
    resumed run leaves the very metrics.jsonl an unbroken one leaves. None of its values may therefore depend on the clock; `time` takes those.
    """

    def __init__(self, workdir, step=0, tensorboard=True):
        self.path = pathlib.Path(workdir).absolute() / FILE
        self._files, self._events = {}, None
        if jax.process_index() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for name in (FILE, TIMING):
                path = self.path.with_name(name)
                _cut(path, step)
                self._files[name] = open(path, "a", encoding="utf-8")
            if tensorboard:
                self._events = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=step + 1)

    def write(self, step, values):
        """Write one line of scalars, flushed at once. values: {name: number}; `step` is no name."""
        self._line(FILE, step, values)

    def time(self, step, values):
        """Write scalars that depend on the clock: a line of timing.jsonl. values: as of `write`."""
        self._line(TIMING, step, values)

    def _line(self, name, step, values):
        if "step" in values:
            raise ValueError("values must not contain 'step': it is the line's own field")
        values = {key: _plain(key, value) for key, value in values.items()}
        if name in self._files:
            self._files[name].write(json.dumps({"step": int(step), **values}) + "\n")
            self._files[name].flush()
        for key, value in values.items() if self._events is not None else ():
            self._events.add_scalar(key, value, int(step))

    def close(self):
        files, self._files = self._files, {}
        for file in files.values():
            file.close()
        if self._events is not None:
            self._events.close()
        self._events = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def read_metrics(path):
    """The lines of a metrics.jsonl as a list of dicts; a last line cut short by a crash is left out.

    path: the file, or the folder it lies in. Raises ValueError naming the line where any other line is damaged.
    """
    path = pathlib.Path(path)
    path = path / FILE if path.is_dir() else path
    return [row for _, row in _rows(path)]


def _rows(path):
    """Pairs (text, parsed line) of the whole lines."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["step"] + 0
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: expected a JSON object with a number 'step', got {line.strip()[:80]!r}") from error
        rows.append((line, row))
    return rows


def _cut(path, step):
    if not path.exists():
        return
    kept = "".join(line for line, row in _rows(path) if row["step"] <= step)
    with files.atomic(path) as part:
        part.write_text(kept, encoding="utf-8")


def _plain(name, value):
    """A Python number."""
    if getattr(value, "shape", ()) != ():
        raise TypeError(f"metric {name!r} must be a scalar; got shape {value.shape}")
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, (int, float)):
        raise TypeError(f"metric {name!r} must be a number; got {type(value).__name__}")
    return value
