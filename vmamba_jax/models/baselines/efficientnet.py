"""EfficientNet-Lite: mobile inverted bottlenecks with ReLU6 and without squeeze-excitation.

Source: Tan and Le, arXiv 1905.11946; TensorFlow's tpu/efficientnet/lite.
"""
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import DropPath, batch_norm, conv, fan_out_init
from vmamba_jax.models.layers.convolution import LAYOUT, depthwise_conv
from vmamba_jax.models.layers.stages import ParameterGroups, rematerialized

STEM, HEAD = 32, 1280  # fixed in every Lite model
GROUPS = (  # blocks, kernel, stride, expansion, output channels of each group, before scaling
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
_conv = functools.partial(conv, padding="SAME", kernel_init=fan_out_init)
_norm = functools.partial(batch_norm, eps=1e-3, momentum=0.99)  # TensorFlow's


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite: (b, H, W, in_channels) normalized images -> (b, num_classes) logits.

    Attributes:
        num_classes: width of the head; 0 returns the pooled features.
        width, depth: multipliers of channels and blocks (Lite0: 1 and 1); the stem, the head and the depth of the first and last groups are fixed.
        in_channels: channels of the images.
        drop_path_rate: the rates ("drop connect") rise linearly from 0 over the blocks, to this times (1 - 1 / blocks) at the last block.
        dropout_rate: before the head, in training.
        remat: activations that the backward pass recomputes, see `layers.stages.REMAT`; True is "blocks", False "none".
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    num_classes: int = 1000
    width: float = 1.0
    depth: float = 1.0
    in_channels: int = 3
    drop_path_rate: float = 0.2
    dropout_rate: float = 0.2
    remat: bool | str = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    PARAMETERS = ParameterGroups(stem=r"conv_stem|bn0", head=r"conv_head|bn1|fc", blocks=((r"blocks_(\d+)/", lambda block: (block,)),),
                                 images="conv_stem/kernel", logits="fc")

    @nn.compact
    def __call__(self, images, train=False):
        checks.images(images, self.in_channels)
        checks.number("drop_path_rate", self.drop_path_rate, low=0, below=1)
        checks.number("dropout_rate", self.dropout_rate, low=0, below=1)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = nn.relu6(_norm(train, name="bn0", **options)(_conv(STEM, 3, 2, name="conv_stem", **options)(images)))
        probes.record(self, "stem_out", x)
        block = rematerialized(Block, self.remat)
        for i, (shape, rate) in enumerate(zip(self._shapes(), self.drop_path_rates, strict=True)):
            x = block(*shape, rate, name=f"blocks_{i}", **options)(x, train)
        probes.last_map(self, x)
        x = nn.relu6(_norm(train, name="bn1", **options)(_conv(HEAD, 1, 1, name="conv_head", **options)(x)))
        probes.record(self, "head_out", x)
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform"), name="fc", **options)(x) \
            if self.num_classes else x

    @property
    def drop_path_rates(self):
        """Drop-path rate of every block, in the network's order; blocks without a shortcut ignore theirs."""
        blocks = len(self._shapes())
        return tuple(self.drop_path_rate * i / blocks for i in range(blocks))

    def _shapes(self):
        """(kernel, stride, expansion, channels) of every block."""
        shapes = []
        for i, (count, kernel, stride, expansion, channels) in enumerate(GROUPS):
            count = count if i in (0, len(GROUPS) - 1) else math.ceil(self.depth * count)
            channels = _rounded(channels * self.width)
            shapes += [(kernel, stride, expansion, channels)] + [(kernel, 1, expansion, channels)] * (count - 1)
        return shapes


def _rounded(channels, divisor=8):
    """The nearest multiple of `divisor` that is at least 90 % of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor * (rounded < 0.9 * channels)


class Block(nn.Module):
    """1x1 expansion, depth-wise convolution, 1x1 projection; the input is added if the output has its shape."""
    kernel: int
    stride: int
    expansion: int
    channels: int
    drop_path: float = 0.0
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        shortcut, hidden = x, x.shape[-1] * self.expansion
        if self.expansion != 1:
            x = nn.relu6(_norm(train, name="bn0", **options)(_conv(hidden, 1, 1, name="expand_conv", **options)(x)))
        x = StridedDepthwise(self.kernel, self.stride, name="depthwise_conv", **options)(x)
        x = nn.relu6(_norm(train, name="bn1", **options)(x))
        x = _norm(train, name="bn2", **options)(_conv(self.channels, 1, 1, name="project_conv", **options)(x))
        return shortcut + DropPath(self.drop_path)(x, train) if x.shape == shortcut.shape and self.stride == 1 else x


class StridedDepthwise(nn.Module):
    """Depth-wise convolution with TensorFlow's "SAME" padding, whose odd row and column are at the bottom and right."""
    kernel_size: int
    stride: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", fan_out_init, (self.kernel_size, self.kernel_size, 1, x.shape[-1]), self.param_dtype)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        if self.stride == 1:
            return depthwise_conv(x, kernel)
        return jax.lax.platform_dependent(x, kernel, cpu=_every_second, default=_halving_conv)


def _halving_conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", feature_group_count=x.shape[-1], dimension_numbers=LAYOUT)


def _every_second(x, kernel):
    """The same from the convolution of stride 1: its windows are centered on the odd positions of an even side, on the even ones of an odd side."""
    rows, columns = ((side + 1) % 2 for side in x.shape[1:3])
    return depthwise_conv(x, kernel)[:, rows::2, columns::2]
