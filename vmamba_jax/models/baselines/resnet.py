"""ResNet v1.5, whose stride is in the 3x3 convolution, as in torchvision and timm.

Source: He et al., arXiv 1512.03385.
"""
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import DropPath, batch_norm, conv, conv_kernel_init, fan_out_init, uniform
from vmamba_jax.models.layers.stages import ParameterGroups, StagedBackbone

BLOCKS = {"basic": 1, "bottleneck": 4}  # name -> width of a block's output over its inner width
STEMS = ("imagenet", "cifar")


class Block(nn.Module):
    """relu(shortcut(x) + DropPath(convolutions(x))); the shortcut is a 1x1 convolution if shape or width changes.

    Attributes:
        kind: one of BLOCKS.
        width: inner width.
        stride: of the first 3x3 convolution.
        zero_init_last: start the last norm's scale at 0.
        drop_path: rate of the branch.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    kind: str
    width: int
    stride: int = 1
    zero_init_last: bool = True
    drop_path: float = 0.0
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        out = self.width * BLOCKS[self.kind]
        shapes = ([(self.width, 3, self.stride), (out, 3, 1)] if self.kind == "basic" else
                  [(self.width, 1, 1), (self.width, 3, self.stride), (out, 1, 1)])  # (channels, size, stride) of each convolution
        shortcut = x
        if self.stride != 1 or x.shape[-1] != out:
            shortcut = batch_norm(train, name="downsample_1", **options)(_conv(out, 1, self.stride, name="downsample_0", **options)(x))
        for i, shape in enumerate(shapes, 1):
            last = i == len(shapes)
            x = _conv(*shape, name=f"conv{i}", **options)(x)
            x = batch_norm(train, zero_scale=last and self.zero_init_last, name=f"bn{i}", **options)(x)
            x = x if last else jax.nn.relu(x)
        return jax.nn.relu(shortcut + DropPath(self.drop_path)(x, train))


class ResNet(StagedBackbone):
    """Residual network: (b, H, W, in_channels) normalized images -> (b, num_classes) logits. Its maps have no norm of their own.

    The other fields are those of `StagedBackbone`.

    Attributes:
        layers, channels: blocks and inner width of each stage.
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1 to four times the width).
        stem: "imagenet" (7x7 of stride 2, then 3x3 max pooling of stride 2) or "cifar" (3x3, full resolution, for 32 x 32 images).
        stem_width: channels of the stem.
        zero_init_last: each block's last norm starts at scale 0 (timm), not 1 (torchvision).
    """
    layers: Sequence[int] = (3, 4, 6, 3)
    channels: Sequence[int] = (64, 128, 256, 512)
    block: str = "bottleneck"
    stem: str = "imagenet"
    stem_width: int = 64
    zero_init_last: bool = True

    BLOCK = Block
    PER_STAGE = ("layers", "channels")
    PARAMETERS = ParameterGroups(stem=r"conv1|bn1", head=r"fc", blocks=((r"layer(\d+)_(\d+)/", lambda stage, block: (stage, block)),),
                                 images="conv1/kernel", logits="fc")

    depths = property(lambda self: tuple(self.layers), doc="Blocks of each stage.")

    def _stem(self, images, train):
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = _conv(self.stem_width, size, stride, name="conv1", **self._dtypes)(images)
        x = jax.nn.relu(batch_norm(train, name="bn1", **self._dtypes)(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        probes.record(self, "stem_out", x)
        return x

    def _blocks(self, i):
        shared = dict(kind=self.block, width=self.channels[i], zero_init_last=self.zero_init_last, **self._dtypes)
        return [dict(shared, stride=2 if i and j == 0 else 1) for j in range(self.layers[i])]

    def _apply_stage(self, i, blocks, x, train):
        for j, block in enumerate(blocks):
            x = block(name=f"layer{i + 1}_{j}")(x, train)
        return x

    def _output_norm(self, i, x):
        del i
        return x

    def _pool(self, x, train):
        del train
        return x.mean((1, 2))

    def _head(self, x):
        return nn.Dense(self.num_classes, kernel_init=conv_kernel_init, bias_init=uniform(x.shape[-1]**-0.5), name="fc", **self._dtypes)(x)

    def _check(self, images):
        super()._check(images)
        checks.choice("block", self.block, BLOCKS)
        checks.choice("stem", self.stem, STEMS)


def _conv(features, size, stride, **options):
    """Convolution without bias, padded by size // 2 on every side (not "SAME", which pads (0, 1) at stride 2)."""
    return conv(features, size, stride, size // 2, kernel_init=fan_out_init, **options)
