"""Batches made ready on the device while it works on the one before."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.data.batches import prefetch


def device_prefetch(batches, place=jax.device_put, depth=2):
    """Yield batches with their arrays on the device, up to `depth` placed ahead on a thread.

    batches: an iterable of dicts; its `close` is called at the end. place: puts a dict of arrays where the step wants them, e.g.
    `lambda batch: parallel.shard_batch(batch, mesh)`. uint8 images cross to the device as they are and become float32 in [0, 1] there.
    "index" stays on the host.
    """
    return prefetch(_placed(batches, place), depth)


def _placed(batches, place):
    try:
        for batch in batches:
            arrays = place({name: x for name, x in batch.items() if name != "index"})
            if arrays["image"].dtype == np.uint8:
                arrays = {**arrays, "image": _unit_interval(arrays["image"])}
            yield {**arrays, "index": batch["index"]} if "index" in batch else arrays
    finally:
        if hasattr(batches, "close"):
            batches.close()


@jax.jit
def _unit_interval(images):
    """images / 255 by a table: a compiled division by a constant may be off in the last bit from the one on the host."""
    return jnp.asarray(np.arange(256, dtype=np.float32) / np.float32(255))[images]
