"""The line a person watches: how far, how fast, how long still, and how good."""
import time

import jax
from rich import progress

SHOWN = ("loss", "accuracy")


class Throughput:
    """Images a second since the last `restart`, the first step, which compiles, left out."""

    def __init__(self):
        self._images, self._since = 0, None

    def add(self, images, outputs):
        """Count a step; the first is waited for."""
        if self._since is None:
            jax.block_until_ready(outputs)
            self.restart()
        else:
            self._images += images

    @property
    def rate(self):
        return self._images / max(time.perf_counter() - self._since, 1e-9)

    def restart(self):
        self._images, self._since = 0, time.perf_counter()


class Bar:
    """A progress bar over `steps`, beginning at `start`; a context manager. Only the first process of several draws it."""

    def __init__(self, start, steps, shown=True):
        self._bar = progress.Progress(
            progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}"), progress.BarColumn(), progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(), progress.TextColumn("{task.description}"), disable=not shown or jax.process_index() != 0)
        self._task = self._bar.add_task("", total=steps, completed=start)

    def advance(self, done):
        self._bar.update(self._task, completed=done)

    def show(self, rate, values):
        """rate: images a second. values: metrics; those in `SHOWN` are shown."""
        text = [f"{rate:,.0f} images/s"] if rate else []
        text += [f"{name} {values[name]:.3f}" for name in SHOWN if name in values]
        self._bar.update(self._task, description="  ".join(text))

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exc):
        self._bar.stop()
