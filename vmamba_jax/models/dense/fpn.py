"""Feature pyramid network: maps of one width from a backbone's, each with the coarser ones' information.

Source: Lin et al. 2017, arXiv 1612.03144; MMDetection's FPN.
"""
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vmamba_jax.models.dense.layers import ConvModule


class FPN(nn.Module):
    """Maps (b, H_i, W_i, C_i), the finest first -> as many maps (b, H_i, W_i, channels) and coarser ones, each every second cell of the last.

    Attributes:
        channels: width of the maps.
        count: number of maps.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    channels: int = 256
    count: int = 5
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps):
        def conv(name, i, size):
            return ConvModule(self.channels, size, norm=False, act=False, kernel_init=nn.initializers.xavier_uniform(), name=f"{name}_{i}",
                              dtype=self.dtype, param_dtype=self.param_dtype)
        laterals = [conv("lateral_convs", i, 1)(x) for i, x in enumerate(maps)]
        for i in range(len(maps) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + nearest(laterals[i], laterals[i - 1].shape[1:3])
        outs = [conv("fpn_convs", i, 3)(x) for i, x in enumerate(laterals)]
        while len(outs) < self.count:
            outs.append(outs[-1][:, ::2, ::2])
        return outs


def nearest(x, size):
    """A map (b, H, W, C) resized to (H', W') without interpolation, by PyTorch's rule."""
    for axis, length in zip((1, 2), size, strict=True):
        step = np.float32(x.shape[axis]) / np.float32(length)
        at = np.minimum(np.floor(np.arange(length, dtype=np.float32) * step).astype(int), x.shape[axis] - 1)
        x = x if length == x.shape[axis] else jnp.take(x, at, axis)
    return x
