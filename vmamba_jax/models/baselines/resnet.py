"""ResNet v1.5 (He et al., arXiv 1512.03385; the stride in the 3x3 convolution, as torchvision and timm have it)."""
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import DropPath, conv_kernel_init, uniform
from vmamba_jax.models.layers.convolution import Conv

BLOCKS = {"basic": 1, "bottleneck": 4}  # name -> width of a block's output over its inner width
STEMS = ("imagenet", "cifar")
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet(nn.Module):
    """Residual network: (b, H, W, in_channels) normalised images -> (b, num_classes) logits.

    Attributes:
        num_classes: width of the head; 0 returns the pooled features.
        layers, channels: blocks and inner width of each stage.
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1 to four times the width).
        stem: "imagenet" (7x7 of stride 2, then 3x3 max pooling of stride 2) or "cifar" (3x3, full resolution, for 32 x 32 images).
        stem_width: channels of the stem.
        zero_init_last: each block's last norm starts at scale 0 (timm), not 1 (torchvision).
        drop_path_rate: rises linearly from 0 to this over the blocks.
        remat: recompute each block's activations in the backward pass.
        out_indices: if not empty, return these stages' maps (b, H_i, W_i, C_i) instead; they have no further norm.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters'.
    """
    num_classes: int = 1000
    layers: Sequence[int] = (3, 4, 6, 3)
    channels: Sequence[int] = (64, 128, 256, 512)
    block: str = "bottleneck"
    stem: str = "imagenet"
    stem_width: int = 64
    zero_init_last: bool = True
    in_channels: int = 3
    drop_path_rate: float = 0.0
    remat: bool = False
    out_indices: Sequence[int] = ()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        self._check(images)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = conv(self.stem_width, size, stride, name="conv1", **options)(images)
        x = jax.nn.relu(norm(train, name="bn1", **options)(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        probes.record(self, "stem_out", x)

        rates = iter(np.linspace(0, self.drop_path_rate, sum(self.layers)).tolist())
        block, maps = nn.remat(Block, static_argnums=(2,)) if self.remat else Block, []
        for i, (depth, width) in enumerate(zip(self.layers, self.channels, strict=True)):
            for j in range(depth):
                stride = 2 if i and j == 0 else 1
                x = block(self.block, width, stride, self.zero_init_last, next(rates), name=f"layer{i + 1}_{j}", **options)(x, train)
            probes.record(self, f"stage{i}_blocks", x)
            if i in self.out_indices:
                maps.append(x)
        if self.out_indices:
            return maps
        x = x.mean((1, 2))
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, kernel_init=conv_kernel_init, bias_init=uniform(x.shape[-1]**-0.5), name="fc", **options)(x)

    def _check(self, images):
        checks.images(images, self.in_channels)
        checks.number("drop_path_rate", self.drop_path_rate, low=0, below=1)
        checks.choice("block", self.block, BLOCKS)
        checks.choice("stem", self.stem, STEMS)
        checks.same_length(layers=self.layers, channels=self.channels)
        checks.stages(self.out_indices, len(self.layers))


class Block(nn.Module):
    """relu(shortcut(x) + DropPath(convolutions(x))); the shortcut is a 1x1 convolution where shape or width changes."""
    kind: str
    width: int
    stride: int = 1
    zero_init_last: bool = True
    drop_path: float = 0.0
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        out = self.width * BLOCKS[self.kind]
        shapes = ([(self.width, 3, self.stride), (out, 3, 1)] if self.kind == "basic" else
                  [(self.width, 1, 1), (self.width, 3, self.stride), (out, 1, 1)])  # (channels, size, stride) of each convolution
        shortcut = x
        if self.stride != 1 or x.shape[-1] != out:
            shortcut = norm(train, name="downsample_1", **options)(conv(out, 1, self.stride, name="downsample_0", **options)(x))
        for i, shape in enumerate(shapes, 1):
            last = i == len(shapes)
            x = conv(*shape, name=f"conv{i}", **options)(x)
            x = norm(train, zero=last and self.zero_init_last, name=f"bn{i}", **options)(x)
            x = x if last else jax.nn.relu(x)
        return jax.nn.relu(shortcut + DropPath(self.drop_path)(x, train))


def conv(features, size, stride, *, dtype, param_dtype, name):
    """Square convolution without bias, padded by size // 2 on every side (never "SAME", which pads (0, 1) at stride 2)."""
    return Conv(features, (size, size), (stride, stride), ((size // 2, size // 2),) * 2, use_bias=False, kernel_init=kernel_init,
                dtype=dtype, param_dtype=param_dtype, name=name)


def norm(train, *, zero=False, dtype, param_dtype, name):
    """Batch norm with PyTorch's eps 1e-5 and momentum 0.1 (Flax counts it the other way round)."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, param_dtype=param_dtype, name=name,
                        scale_init=nn.initializers.zeros if zero else nn.initializers.ones)
