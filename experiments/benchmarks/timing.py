"""Timing: the candidates of a group run in turn, round by round, so that other load on the machine affects all of them alike."""
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

LEAST = 3       # minimum number of rounds
FLOOR = 2e-3    # seconds: shorter calls are timed several at a time
PAUSE = 0.02    # seconds before each timing, in which the threads of the previous candidate become idle


class Skip(Exception):
    """This candidate cannot run here; the message is the reason, which becomes a note of the result."""


@dataclasses.dataclass
class Case:
    """A compiled candidate with its arguments.

    Attributes:
        record: the fields that identify it in its record.
        run: dispatches one call and returns its output.
        wait: blocks until an output is ready.
        queued: whether several calls may be dispatched and then waited for together (a CPU would run them concurrently).
        images: per call.
        bytes: minimum memory traffic per call.
        program: the compiled program of XLA, if `operations` are to be named.
        module: class name of its model, if the share of the time outside the model is wanted.
    """
    record: dict
    run: Callable[[], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready
    queued: bool = True
    images: int | None = None
    bytes: int | None = None
    program: Any = None
    module: str | None = None

    def seconds(self, calls):
        """Seconds per call, averaged over `calls` calls."""
        since = time.perf_counter()
        for _ in range(calls):
            out = self.run()
            if not self.queued:
                self.wait(out)
        self.wait(out)
        return (time.perf_counter() - since) / calls


def measure(cases, repeats, budget, tick=lambda: None):
    """Time the cases and return their records.

    Args:
        cases: the candidates of a group. If one of them is a copy, records with "bytes" get their fraction of its bandwidth.
        repeats: rounds; every second round runs in reverse order.
        budget: seconds after which no further round begins, once `LEAST` are done.
        tick: called after each timing.
    """
    calls = []
    for case in cases:
        case.seconds(1)
        calls.append(int(np.clip(np.ceil(FLOOR / case.seconds(1)), 1, 200)))
    times, began = [[] for _ in cases], time.perf_counter()
    for done in range(repeats):
        if done >= LEAST and time.perf_counter() - began > budget:
            break
        for i in range(len(cases))[::-1 if done % 2 else 1]:
            time.sleep(PAUSE)
            times[i].append(cases[i].seconds(calls[i]))
            tick()
    records = [_record(case, seconds) for case, seconds in zip(cases, times, strict=True)]
    copy = next((r["bytes"] / r["seconds"]["median"] for r in records if r["what"] == "copy"), None)
    for record in records:
        if copy and "bytes" in record:
            record["share_of_copy"] = rounded(record["bytes"] / record["seconds"]["median"] / copy)
    return records


def _record(case, seconds):
    q1, median, q3 = np.percentile(seconds, (25, 50, 75))
    figures = {"median": median, "min": min(seconds), "q1": q1, "q3": q3}
    record = case.record | {"seconds": {name: rounded(value) for name, value in figures.items()} | {"repeats": len(seconds)}}
    if case.images:
        record["images_per_s"] = rounded(case.images / median)
    if case.bytes:
        record["bytes"] = case.bytes
    return record


def rounded(value):
    """`value` with four significant digits."""
    return float(f"{value:.4g}")
