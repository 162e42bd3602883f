"""Convolutional stem: 3 x 3 convolutions with norm and GELU in place of a patch embedding.

Source: Singh et al., arXiv 2303.01870 (ConvStem), and its repository nmndeep/revisiting-at.
"""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.models.layers.common import LayerNorm, activation, conv, uniform


class ConvStem(nn.Module):
    """(b, H, W, in) -> (b, H / patch_size, W / patch_size, channels); odd sides round up at each convolution of stride 2.

    Attributes:
        widths: channels of the 3 x 3 convolutions, each followed by a norm and a GELU; the first log2(patch_size) have stride 2, the others 1.
        patch_size: total stride, a power of 2.
        features: channels of a 1 x 1 convolution at the end; None: no such convolution.
        eps: of the norms.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    widths: Sequence[int]
    patch_size: int
    features: int | None = None
    eps: float = 1e-6
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        halvings = self.patch_size.bit_length() - 1
        if self.patch_size != 2**halvings or halvings > len(self.widths):
            raise ValueError(f"conv_stem={tuple(self.widths)}: expected channels of at least log2(patch_size) convolutions, with patch_size={self.patch_size} "
                             "a power of 2")
        for i, width in enumerate(self.widths):
            bound = (9 * x.shape[-1])**-0.5
            x = conv(width, 3, 2 if i < halvings else 1, 1, bias_init=uniform(bound), name=f"stem_{3 * i}", **options)(x)
            x = activation("gelu")(LayerNorm(self.eps, name=f"stem_{3 * i + 1}", **options)(x))
        if self.features is None:
            return x
        return conv(self.features, 1, bias_init=uniform(x.shape[-1]**-0.5), name=f"stem_{3 * len(self.widths)}", **options)(x)
