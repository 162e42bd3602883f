"""Where a run's time goes: the seconds of each phase of the training loop, and the step it is in."""
import collections
import statistics
import threading
import time
from typing import NamedTuple

PHASES = ("compile", "data", "step", "validation", "checkpoint")
REMEMBERED = 64  # durations of a phase whose median is taken


class Now(NamedTuple):
    """What a run does at the moment.

    Attributes:
        phase: one of `PHASES`.
        step: the step that began last.
        seconds: since the phase began; in "data" and "step", since the last step ended.
        usual: median of the latest durations of this phase, or of the steps; None: too few so far.
    """
    phase: str
    step: int
    seconds: float
    usual: float | None


class Clock:
    """Sums the seconds of each phase of a loop that calls `enter` as it goes from one to the next.

    Args:
        clock: function that returns seconds.
    """

    def __init__(self, clock=time.perf_counter):
        self._clock, self._lock = clock, threading.Lock()
        self._sums = dict.fromkeys(PHASES, 0.0)
        self._lengths = collections.defaultdict(lambda: collections.deque(maxlen=REMEMBERED))
        self._phase, self._step, self._since, self._ended = None, 0, 0.0, 0.0

    def enter(self, phase, step):
        """The phase `phase` of step `step` begins, and the one before it ends."""
        now = self._clock()
        with self._lock:
            self._close(now)
            if phase == "data" and self._phase in ("step", "data"):  # a step ended, and nothing but the next one follows
                self._lengths["step"].append(now - self._ended)
            if phase == "data":
                self._ended = now
            self._phase, self._step, self._since = phase, step, now

    def end(self):
        """The loop ended: `now` returns None from here on."""
        with self._lock:
            self._close(self._clock())
            self._phase = None

    def _close(self, now):
        if self._phase is not None:
            self._sums[self._phase] += now - self._since
            if self._phase in ("validation", "checkpoint"):
                self._lengths[self._phase].append(now - self._since)

    def take(self):
        """{"data_seconds": ..., ...}: the seconds of every phase since the last call; the phase that still runs is counted up to here."""
        now = self._clock()
        with self._lock:
            if self._phase is not None:
                self._sums[self._phase] += now - self._since
                self._since = now
            found = {f"{phase}_seconds": seconds for phase, seconds in self._sums.items()}
            self._sums = dict.fromkeys(PHASES, 0.0)
        return found

    def now(self):
        """The `Now` of the run; None before its first and after its last phase."""
        with self._lock:
            if self._phase is None:
                return None
            stepping = self._phase in ("data", "step")
            lengths = self._lengths["step" if stepping else self._phase]
            usual = statistics.median(lengths) if len(lengths) >= (3 if stepping else 1) else None
            return Now(self._phase, self._step, self._clock() - (self._ended if stepping else self._since), usual)
