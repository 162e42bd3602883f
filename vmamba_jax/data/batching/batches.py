"""Batches as a pure function of the step, for one host or several, and reading ahead on a thread."""
import collections
import concurrent.futures

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.images import unit_interval
from vmamba_jax.data.source import Source

_END = object()


class Batches:
    """An endless sequence of batches: `batches[t]` is the batch of step t, whatever was read before.

    Epochs follow one another; each goes through its own permutation of the source, drawn from (seed, epoch). So training resumed at
    step t sees what an unbroken run sees, with nothing to save but t.

    source: a data.Source. batch_size: examples of the GLOBAL batch, a multiple of the number of shards. seed: at least 0.
    shuffle: False keeps the source's order in every epoch.
    shard: (i, n), the i-th of n hosts. The global batch of a step is the same for every n; this shard gets its i-th contiguous slice.
    drop_remainder: leave out the examples (other ones each epoch) that do not fill a batch. False: an epoch's last batch may be short,
        so every example comes once; for a single shard only, since hosts must agree on shapes.

    A batch is {"image": (b, H, W, C) float32 in [0, 1], "label": (b,) int32, "index": (b,) int64 positions in the source}.
    """

    def __init__(self, source, batch_size, *, seed=0, shuffle=True, shard=(0, 1), drop_remainder=True):
        if not isinstance(source, Source):
            raise TypeError(f"source must be a data.Source (data.Arrays wraps arrays), got {type(source).__name__}")
        self.source, self.seed, self.shuffle, self.drop_remainder = source, checks.count("seed", seed, 0), bool(shuffle), bool(drop_remainder)
        self.batch_size = checks.count("batch_size", batch_size)
        if not isinstance(shard, (tuple, list)) or len(shard) != 2:
            raise TypeError(f"shard must be a pair (i, n), got {shard!r}")
        i, n = checks.count("shard[0]", shard[0], 0), checks.count("shard[1]", shard[1])
        if i >= n:
            raise ValueError(f"shard must be (i, n) with i < n, got {tuple(shard)}")
        if self.batch_size % n:
            raise ValueError(f"batch_size must be a multiple of the {n} shards, got {batch_size}")
        if n > 1 and not drop_remainder:
            raise ValueError(f"drop_remainder must be True with several shards, got False with shard {tuple(shard)}")
        self.shard = (i, n)
        self._epochs = source.epochs(self.batch_size, self.seed, self.shuffle, self.drop_remainder)
        self.steps_per_epoch = self._epochs.steps_per_epoch
        if self.steps_per_epoch == 0:
            raise ValueError(f"{source!r} does not fill one batch: batch_size is {batch_size}")

    def indices(self, t):
        """(b,) int64 positions in the source of step t's batch (this shard's slice of it), t >= 0."""
        return self._examples(t)[1]

    def _examples(self, t):
        """For each example of step t: the pass through its set that it belongs to, and its position in the source."""
        i, n = self.shard
        b = self.batch_size // n
        return tuple(part[i * b:(i + 1) * b] if n > 1 else part for part in self._epochs(checks.count("t", t, 0)))

    def __getitem__(self, t):
        indices = self.indices(t)
        images, labels = self.source.gather(indices)
        return {"image": unit_interval(images), "label": labels, "index": indices.astype(np.int64)}

    def __iter__(self):
        return self.iterate()

    def iterate(self, start=0, stop=None, *, depth=2):
        """Batches of steps start, start + 1, ... below stop (None: without end), `depth` of them read ahead on a thread."""
        t, stop = checks.count("start", start, 0), stop if stop is None else checks.count("stop", stop, 0)

        def batches(t):
            while stop is None or t < stop:
                yield self[t]
                t += 1
        return prefetch(batches(t), depth)

    def __repr__(self):
        return (f"Batches({self.source!r}, {self.batch_size}, seed={self.seed}, shuffle={self.shuffle}, shard={self.shard}, "
                f"drop_remainder={self.drop_remainder})")


def epoch(source, batch_size, *, depth=2):
    """Every example of a source once, in order; the last batch may be short. depth: batches read ahead."""
    batches = Batches(source, batch_size, shuffle=False, drop_remainder=False)
    return batches.iterate(0, batches.steps_per_epoch, depth=depth)


def prefetch(iterator, depth=2):
    """Yield an iterator's items in order while a thread computes up to `depth` of them ahead; 0 does without the thread.

    An exception of the iterator is raised at its place. The thread ends with the items, and when the generator is closed or dropped;
    the iterator is then closed too.
    """
    depth = checks.count("depth", depth, 0)
    iterator = iter(iterator)
    return _prefetched(iterator, depth) if depth else iterator


def _prefetched(iterator, depth):
    pool = concurrent.futures.ThreadPoolExecutor(1, "prefetch")
    try:
        ahead = collections.deque(pool.submit(next, iterator, _END) for _ in range(depth))
        while (item := ahead.popleft().result()) is not _END:
            ahead.append(pool.submit(next, iterator, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        if hasattr(iterator, "close"):
            iterator.close()
