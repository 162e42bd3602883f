"""Drop-path rates that a model applies, read from its DropPath modules."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from vmamba_jax.models.layers.common import DropPath


def applied_rates(model, side=64):
    """{path of a block: rate}, in the order of the calls; a block whose branches differ in rate raises an AssertionError. Nothing is computed."""
    found = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            block = "/".join(context.module.path[:-1])
            assert found.setdefault(block, context.module.rate) == context.module.rate, block
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, side, side, model.in_channels), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda images: model.init(jax.random.key(0), images), images)
    return found
