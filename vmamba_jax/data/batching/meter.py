"""Does the input keep up? Images a second, and the share of the time that was spent waiting for them."""
import time


class Meter:
    """An iterator of batches that notes what its consumer waited.

    Since the last `restart` (or the first request): images handed out, seconds `waited` for them, seconds `elapsed`, images a second
    (`rate`) and `share` = waited / elapsed in [0, 1], near 1 where the input is what limits. `close` closes the iterator.
    size: batch -> the number of its images; None: of its labels.
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
    def share(self):
        return self.waited / max(self.elapsed, 1e-9)

    @property
    def rate(self):
        return self.images / max(self.elapsed, 1e-9)

    def restart(self):
        self.images, self.waited, self._since = 0, 0.0, self._clock()

    def close(self):
        if hasattr(self._batches, "close"):
            self._batches.close()


def input_rate(batches, steps=10, warmup=2):
    """Images a second that `batches` (with `iterate`) give when nothing else is done: the most a model can be fed.

    warmup: batches read first, while threads and workers start; with what these made ahead, measure several times as many steps.
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
