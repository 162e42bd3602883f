"""Maps of four strides from the maps of Vim's blocks, which all have one: two are enlarged, one or more made smaller.

Source: BEiT (Bao et al., arXiv 2106.08254) as in `VisionMambaSeg` of Vim's repository (hustvl/Vim).
"""
import functools

import flax.linen as nn
import jax

from vmamba_jax.models.dense.layers import BatchNorm, Doubled

STRIDES = (16, 8)  # of the patches, for which there is a pyramid


def pyramid(maps, stride, train, **dtypes):
    """Four maps (b, H, W, C) of one stride -> maps of the strides 4, 8, 16 and 32; called inside a module, which gets the parameters `fpn1_*` and `fpn2_*`.

    Args:
        maps: of four blocks, the first block's first.
        stride: of the maps in pixels, one of `STRIDES`.
        train: the batch norm takes its statistics from the batch.
        dtypes: dtype and param_dtype of the layers.
    """
    first, second, third, last = maps
    double = functools.partial(Doubled, first.shape[-1], **dtypes)
    if stride == 8:
        return [double(name="fpn1_0")(first), second, _pooled(third, 2), _pooled(last, 4)]
    first = BatchNorm(name="fpn1_1", **dtypes)(double(name="fpn1_0")(first), train)
    return [double(name="fpn1_3")(jax.nn.gelu(first, approximate=False)), double(name="fpn2_0")(second), third, _pooled(last, 2)]


def _pooled(x, side):
    return nn.max_pool(x, (side, side), (side, side))
