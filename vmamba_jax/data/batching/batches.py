"""Batches as a pure function of the step, for one host or several; prefetching on a thread, and the transfer to the device."""
import collections
import concurrent.futures

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.images import LEVELS, unit_interval
from vmamba_jax.data.source import check_source

_END = object()


class Batches:
    """An endless sequence of batches: `batches[t]` is the batch of step t, independent of earlier reads.

    A batch is {"image": (b, H, W, C) float32 in [0, 1], "label": (b,) int32, "index": (b,) int64 positions in the source}. Every epoch is a
    permutation of the source, drawn from (seed, epoch). A run resumed at step t gets the batches of an unbroken run; t is all it saves.

    Args:
        source: a `data.Source`.
        batch_size: examples of the GLOBAL batch, a multiple of the number of shards.
        seed: at least 0.
        shuffle: False: the source's order in every epoch.
        shard: (i, n) for host i of n. The global batch of a step is the same for every n; host i gets its i-th contiguous slice.
        drop_remainder: leave out the examples (different ones each epoch) that do not fill a batch. False: the last batch of an epoch may be
            short, so every example comes once; only for a single shard, since all hosts need equal shapes.

    Attributes:
        steps_per_epoch: number of batches in an epoch.
    """

    def __init__(self, source, batch_size, *, seed=0, shuffle=True, shard=(0, 1), drop_remainder=True):
        check_source(source)
        self.source, self.seed, self.shuffle, self.drop_remainder = source, checks.count("seed", seed, 0), bool(shuffle), bool(drop_remainder)
        self.batch_size = checks.count("batch_size", batch_size)
        if not isinstance(shard, (tuple, list)) or len(shard) != 2:
            raise TypeError(f"shard={shard!r}: expected a pair (i, n)")
        i, n = checks.count("shard[0]", shard[0], 0), checks.count("shard[1]", shard[1])
        if i >= n:
            raise ValueError(f"shard={tuple(shard)}: expected (i, n) with i < n")
        if self.batch_size % n:
            raise ValueError(f"batch_size={batch_size}: expected a multiple of the {n} shards")
        if n > 1 and not drop_remainder:
            raise ValueError(f"drop_remainder=False: expected True with several shards (shard={tuple(shard)})")
        self.shard = (i, n)
        self._epochs = source.epochs(self.batch_size, self.seed, self.shuffle, self.drop_remainder)
        self.steps_per_epoch = self._epochs.steps_per_epoch
        if self.steps_per_epoch == 0:
            raise ValueError(f"batch_size={batch_size}: expected at most the {len(source)} examples of {source!r}, which do not fill one batch")

    def indices(self, t):
        """(b,) int64 positions in the source of step t's batch (this shard's slice of it), t >= 0."""
        return self._examples(t)[1]

    def _examples(self, t):
        """(epoch, position) of each example of step t, in this shard's slice."""
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
        """The batches of steps start, start + 1, ... below stop (None: endless); a thread reads `depth` of them ahead."""
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
    """Every example of a source once, in order, as batches; the last one may be short. A thread reads `depth` batches ahead."""
    batches = Batches(source, batch_size, shuffle=False, drop_remainder=False)
    return batches.iterate(0, batches.steps_per_epoch, depth=depth)


def prefetch(iterator, depth=2):
    """An iterator over the same items in order, of which a thread computes up to `depth` ahead; depth 0: no thread.

    An exception of the iterator is raised at its place. The thread ends, and the iterator is closed, after the last item and when the
    result is closed or deleted.
    """
    depth = checks.count("depth", depth, 0)
    iterator = iter(iterator)
    return _prefetched(iterator, depth) if depth else iterator


def on_device(batch, place=jax.device_put):
    """(the batch's arrays on the device, its "index" on the host; None if it has none).

    uint8 images cross to the device as bytes and become float32 in [0, 1] there.

    Args:
        batch: dict of arrays.
        place: function that puts a dict of arrays on the device, e.g. `lambda batch: parallel.shard_batch(batch, mesh)`.
    """
    arrays = place({name: x for name, x in batch.items() if name != "index"})
    if arrays["image"].dtype == np.uint8:
        arrays = {**arrays, "image": _levels(arrays["image"])}
    return arrays, batch.get("index")


@jax.jit
def _levels(images):
    return jnp.asarray(LEVELS)[images]


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
