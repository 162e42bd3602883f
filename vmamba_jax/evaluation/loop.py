"""A set cut into equal batches over a mesh, every row with its place in the set."""
import jax
import numpy as np

from vmamba_jax import parallel
from vmamba_jax.core.images import unit_interval


def batches(source, size, mesh, which=None):
    """Yield sharded batches {"image" in [0, 1], "label", "index"} that cover the set once, in order.

    All have `size` rows, grown to a multiple of the devices and no more than the set needs, so one compilation serves all. The last batch
    repeats its last row: two rows with the same index are the same image. Every process reads only its own rows.

    Args:
        source: a pair (images (n, H, W, C), labels (n,)), or a source of `vmamba_jax.data`. Images are uint8, or floating in [0, 1].
        which: rising positions of the examples to cover; None: all.
    """
    read, n = reader(source)
    size = -(-min(size, n) // mesh.size) * mesh.size
    which = np.arange(n) if which is None else np.asarray(which)
    processes = sorted({device.process_index for device in mesh.devices.flat})
    share = size // len(processes)
    for start in range(0, len(which), size):
        first = start + share * processes.index(jax.process_index())
        index = which[np.unique(np.minimum(np.arange(first, first + share), len(which) - 1))]
        images, labels = read(index)
        if images.ndim != 4:
            raise ValueError(f"images have shape {images.shape}: expected (n, height, width, channels)")
        batch = {"image": unit_interval(images), "label": np.asarray(labels, np.int32), "index": index.astype(np.int32)}
        yield parallel.shard_batch(parallel.pad_batch(batch, share)[0], mesh)


def reader(source):
    """(function of an index array -> (images, labels), number of examples)."""
    if isinstance(source, tuple):
        if len(source) != 2 or len(source[0]) != len(source[1]):
            raise ValueError(f"source is a tuple of lengths {[len(x) for x in source]}: expected (images, labels) of one length")
        images, labels = map(np.asarray, source)
        read, n = (lambda index: (images[index], labels[index])), len(images)
    elif hasattr(source, "gather"):
        read, n = source.gather, len(source)
    else:
        raise TypeError(f"source={type(source).__name__}: expected a pair (images, labels) or a source of vmamba_jax.data")
    if n == 0:
        raise ValueError("source has 0 examples: expected at least one")
    return read, n
