"""Layers of dense heads with the numbers of MMSegmentation's: pooling, resizing, convolution with batch norm."""
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers.common import conv, conv_kernel_init, fan_out_init

KEPT = 0.9       # share of a running statistic that a step keeps; PyTorch's momentum is 1 - KEPT
EPS = 1e-5


def resize(x, size):
    """A map (b, H, W, C) bilinearly resized to (H', W'), between the centers of pixels, without a filter: PyTorch's align_corners=False."""
    if x.shape[1:3] == tuple(size):
        return x
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False)


def adaptive_average_pool(x, size):
    """Means of a map (b, H, W, C) over size x size bins; bin i holds the rows floor(i H / size) to ceil((i + 1) H / size), which may overlap."""
    rows, columns = (_bins(length, size) for length in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows.astype(x.dtype), columns.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)


def _bins(length, size):
    """(size, length): each row the weights of a bin's mean."""
    at, i = np.arange(length), np.arange(size)[:, None]
    inside = (at >= i * length // size) & (at < -(-(i + 1) * length // size))
    return inside / inside.sum(1, keepdims=True)


class BatchNorm(nn.Module):
    """Batch norm with PyTorch's running variance, that of an unbiased estimate; Flax's is biased, which shows where a map has few positions."""
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        running = {name: self.variable("batch_stats", name, start, shape, jnp.float32) for name, start in (("mean", jnp.zeros), ("var", jnp.ones))}
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if train:
            count = wide.size // wide.shape[-1]
            if count < 2:
                raise ValueError(f"x.shape={x.shape}: expected at least two values per channel in training; train with two images or more")
            mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
            if not self.is_initializing():
                for name, new in (("mean", mean), ("var", var * count / (count - 1))):
                    running[name].value = KEPT * running[name].value + (1 - KEPT) * new
        else:
            mean, var = running["mean"].value, running["var"].value
        y = (wide - mean) * jax.lax.rsqrt(var + EPS) * scale + bias
        return y.astype(self.dtype or x.dtype)


class ConvModule(nn.Module):
    """Convolution without bias, batch norm, ReLU; or a convolution with a bias instead of the norm: mmcv's ConvModule.

    Attributes:
        features: output channels.
        kernel_size: 1 or 3; the map keeps its size.
        norm: normalize; False: add a bias.
        act: apply ReLU.
        kernel_init: initializer of the kernel.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    features: int
    kernel_size: int = 3
    norm: bool = True
    act: bool = True
    kernel_init: Callable = conv_kernel_init
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = conv(self.features, self.kernel_size, padding=self.kernel_size // 2, bias_init=None if self.norm else nn.initializers.zeros,
                 kernel_init=self.kernel_init, name="conv", **dtypes)(x)
        x = BatchNorm(name="bn", **dtypes)(x, train) if self.norm else x
        return jax.nn.relu(x) if self.act else x


class Doubled(nn.Module):
    """Transposed convolution with a 2 x 2 kernel and stride 2: (n, H, W, C) -> (n, 2 H, 2 W, features).

    Attributes:
        features: output channels.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    features: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", fan_out_init, (2, 2, self.features, x.shape[-1]), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        n, height, width, _ = x.shape
        return jnp.einsum("nyxc,abdc->nyaxbd", x, kernel).reshape(n, 2 * height, 2 * width, self.features) + bias


class OverBackbone(nn.Module):
    """Base of the models over a backbone, modules with the fields backbone, dtype and param_dtype."""

    @property
    def in_channels(self):
        """Channels of the images."""
        return self.backbone.in_channels

    @property
    def _dtypes(self):
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    def _check_backbone(self):
        """ValueError unless the backbone returns four maps."""
        checks.require(len(self.backbone.out_indices) == 4, f"backbone.out_indices={tuple(self.backbone.out_indices)}: expected four maps")
