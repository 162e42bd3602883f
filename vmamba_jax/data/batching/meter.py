"""Measures the input: images per second, and the fraction of the time spent waiting for them."""
import time

from vmamba_jax.core import deprecation


class Meter:
    """An iterator over batches that measures how long its consumer waits for them.

    Args:
        batches: iterable of batches.
        size: function from a batch to its number of images; None: its number of labels.
        clock: function that returns seconds.

    Attributes, since the last `restart` (or the first request):
        images: number of images returned.
        waited, elapsed: seconds of waiting, and in all.
        rate: images per second.
        wait_fraction: waited / elapsed in [0, 1]; near 1 if the input is the bottleneck.
    """

    def __init__(self, batches, size=None, clock=time.perf_counter):
        self._batches, self._clock = iter(batches), clock
        self._size = size or (lambda batch: len(batch["label"]))
        self.images, self.waited, self._since = 0, 0.0, None

    def __iter__(self):
        return self

    def __next__(self):
        before = self._clock()
        if self._since is None:
            self._since = before
        try:
            batch = next(self._batches)
        finally:
            self.waited += self._clock() - before
        self.images += self._size(batch)
        return batch

    @property
    def elapsed(self):
        return 0.0 if self._since is None else self._clock() - self._since

    @property
    def wait_fraction(self):
        return self.waited / max(self.elapsed, 1e-9)

    @property
    def rate(self):
        return self.images / max(self.elapsed, 1e-9)

    def restart(self):
        """Reset all measurements."""
        self.images, self.waited, self._since = 0, 0.0, self._clock()

    def close(self):
        """Close the iterator over the batches."""
        if hasattr(self._batches, "close"):
            self._batches.close()

    def __getattr__(self, name):
        if name != "share":
            raise AttributeError(f"'Meter' object has no attribute {name!r}")
        deprecation.warn("Meter.share", "Meter.wait_fraction")
        return self.wait_fraction


def input_rate(batches, steps=10, warmup=2):
    """Images per second of `batches` if nothing else runs: an upper bound on the rate of training.

    Args:
        batches: `data.Batches` or `data.Pipeline`.
        steps: batches to time; take several times as many as are read ahead.
        warmup: batches read before, while threads and workers start.
    """
    stream = batches.iterate(0, warmup + steps)
    meter = Meter(stream)
    try:
        for _ in range(warmup):
            next(meter)
        meter.restart()
        for _ in range(steps):
            next(meter)
        return meter.rate
    finally:
        meter.close()
