"""A thread that reports a run that makes no progress, and in a run of several processes names those that are late."""
import contextlib
import json
import socket
import sys
import threading
from typing import NamedTuple

import jax

FOLDER = "vmamba_jax/heartbeats/"  # of JAX's coordination service, which process 0 runs
SILENT = 4                         # intervals without a new heartbeat, after which a process counts as stopped
HINTS = {"data": "reads its next batch", "step": "waits for the devices", "validation": "validates", "checkpoint": "saves a checkpoint",
         "compile": "compiles its first step"}


class Heartbeat(NamedTuple):
    """What one process said last.

    Attributes:
        process: its index.
        host: its host's name.
        count: number of heartbeats that it has sent.
        phase, step, seconds: as of `clock.Now`.
    """
    process: int
    host: str
    count: int
    phase: str
    step: int
    seconds: float

    def text(self):
        return f"process {self.process} (host {self.host}): step {self.step}, {HINTS[self.phase]} for {self.seconds:.0f} s"


def late(heartbeats, silent, processes):
    """{index: why} of the processes for which the others wait, by what all said last; empty: none is behind the others.

    Args:
        heartbeats: {index: Heartbeat}.
        silent: {index: seconds without a new heartbeat} of processes that should have sent one.
        processes: number of processes.
    """
    found = {i: f"process {i} has sent no heartbeat yet" for i in range(processes) if i not in heartbeats}
    found |= {i: f"{heartbeats[i].text()}, and silent for {seconds:.0f} s: it is stopped, or its host or network is down" for i, seconds in silent.items()}
    if found:
        return found
    busy = [each for each in heartbeats.values() if each.phase != "step"]  # the others wait for the devices, which wait for these
    first = [each for each in busy if each.step == min(each.step for each in busy)]
    return {each.process: each.text() for each in first} if len(first) < processes else {}


class Watchdog:
    """A context manager whose thread reads a run's `Clock` every few seconds and reports an overdue phase, once for each set of late and of silent processes.

    A phase is overdue after `factor` times the median of its durations, or of the steps', but not before `least` seconds. A first validation,
    checkpoint and step have no limit. In a run of several processes each sends what it does to JAX's coordination service; process 0 reads all of it
    when its own run is late, and names the processes that are behind. The training loop only sets the clock.

    Args:
        clock: of the run.
        factor: 0: no thread.
        least: seconds.
        report: called with each message; None: a line on standard error.
        interval: seconds between two readings; None: a quarter of `least`, from 1 to 10.
    """

    def __init__(self, clock, factor, least=60.0, report=None, interval=None):
        self._clock, self._factor, self._least = clock, factor, least
        self._interval = min(10.0, max(1.0, least / 4)) if interval is None else interval
        self._report = report or (lambda text: print(f"watchdog: {text}", file=sys.stderr, flush=True))
        self._ended, self._thread, self._told = threading.Event(), None, None
        self._count, self._seen = 0, {}
        self._client = _client() if jax.process_count() > 1 else None

    def __enter__(self):
        if self._factor:
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc):
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self):
        while not self._ended.wait(self._interval):
            try:
                self.look()
            except Exception as error:  # the run must not end for want of its watchdog
                self._report(f"it ends, because {type(error).__name__}: {error}")
                return

    def look(self):
        """One reading: sends this process' heartbeat, and reports if the run is late."""
        now = self._clock.now()
        if now is None:
            return
        self._send(now)
        limit = None if now.usual is None else max(self._least, self._factor * now.usual)
        overdue = limit is not None and now.seconds > limit
        if self._client is not None and jax.process_index() == 0:
            self._receive()
        if not overdue:
            self._told = None
            return
        found = self._late()
        if self._told != (told := (now.phase, now.step, tuple((i, self._silent(i)) for i in found))):
            self._told = told
            if self._client is None or jax.process_index() == 0:
                self._report(self._message(now, found))

    def _late(self):
        heartbeats = {i: beat for i, (beat, _) in self._seen.items()}
        silent = {i: misses * self._interval for i, (_, misses) in self._seen.items() if self._silent(i)}
        return late(heartbeats, silent, jax.process_count()) if heartbeats else {}

    def _silent(self, i):
        return i in self._seen and self._seen[i][1] >= SILENT

    def _message(self, now, found):
        what = f"step {now.step} has not ended" if now.phase in ("data", "step") else f"the {now.phase} after step {now.step} has not ended"
        text = f"{what} for {now.seconds:.0f} s, usually {now.usual:.3g} s: this process {HINTS[now.phase]}"
        if self._client is None:
            return text
        if not found:
            return f"{text}; no process is behind the others: look at the devices and the network"
        return f"{text}; late: {'; '.join(found.values())}"

    def _send(self, now):
        if self._client is None:
            return
        self._count += 1
        beat = {"host": socket.gethostname(), "count": self._count, "phase": now.phase, "step": now.step, "seconds": now.seconds}
        self._client.key_value_set(f"{FOLDER}{jax.process_index()}", json.dumps(beat), allow_overwrite=True)

    def _receive(self):
        """Reads all heartbeats: {process: (its heartbeat, number of readings since it was new)}."""
        for key, text in self._client.key_value_dir_get(FOLDER):
            with contextlib.suppress(ValueError):
                i = int(key.rpartition("/")[2])
                beat = Heartbeat(process=i, **json.loads(text))
                before = self._seen.get(i)
                self._seen[i] = beat, 0 if before is None or before[0].count != beat.count else before[1] + 1


def _client():
    """The client of JAX's coordination service, which JAX has no public name for; None if this version of JAX has none."""
    try:
        from jax._src import distributed
        return distributed.global_state.client
    except (ImportError, AttributeError):
        return None
