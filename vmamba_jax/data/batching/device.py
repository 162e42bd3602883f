"""A batch on its way from the host to the device."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core.images import LEVELS


def on_device(batch, place=jax.device_put):
    """(the batch's arrays on the device, its "index", which stays on the host; None where it has none).

    place: puts a dict of arrays where the step wants them, e.g. `lambda batch: parallel.shard_batch(batch, mesh)`. uint8 images cross to the
    device as they are and become float32 in [0, 1] there.
    """
    arrays = place({name: x for name, x in batch.items() if name != "index"})
    if arrays["image"].dtype == np.uint8:
        arrays = {**arrays, "image": _unit_interval(arrays["image"])}
    return arrays, batch.get("index")


@jax.jit
def _unit_interval(images):
    """images / 255 by a table: a compiled division by a constant may be off in the last bit from the one on the host."""
    return jnp.asarray(LEVELS)[images]
