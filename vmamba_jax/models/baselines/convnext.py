"""ConvNeXt: a ResNet modernized toward Swin, without attention.

Source: Liu et al., arXiv 2201.03545.
"""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import MLP, DepthwiseConv, DropPath, LayerNorm, dense_init, normal_conv
from vmamba_jax.models.layers.conv_stem import ConvStem
from vmamba_jax.models.layers.stages import ParameterGroups, StagedBackbone

EPS = 1e-6


class Block(nn.Module):
    """x + DropPath(gamma * MLP(norm(conv_dw(x)))), where conv_dw is a depth-wise 7 x 7 convolution."""
    layer_scale_init: float | None = 1e-6
    drop_path: float = 0.0
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options, channels = dict(dtype=self.dtype, param_dtype=self.param_dtype), x.shape[-1]
        y = DepthwiseConv(7, kernel_init=dense_init, name="conv_dw", **options)(x)
        y = MLP(4 * channels, name="mlp", **options)(LayerNorm(EPS, name="norm", **options)(y))
        if self.layer_scale_init is not None:
            gamma = self.param("gamma", nn.initializers.constant(self.layer_scale_init), (channels,), self.param_dtype)
            y = y * gamma.astype(y.dtype)
        return x + DropPath(self.drop_path)(y, train)


class ConvNeXt(StagedBackbone):
    """ConvNeXt classifier or backbone: (b, H, W, in_channels) normalized images -> (b, num_classes) logits.

    The other fields are those of `StagedBackbone`.

    Attributes:
        depths, dims: blocks and width of each stage.
        patch_size: stride of the stem; every further stage halves the map, rounding down.
        conv_stem: channels of the 3 x 3 convolutions of a `ConvStem` (Singh et al., arXiv 2303.01870), the last dims[0]; (): patches.
        layer_scale_init: initial value of each block's scale per channel; None: no scale.

    Raises:
        ValueError: images of another rank or number of channels or too small, or inconsistent fields.
    """
    depths: Sequence[int] = (3, 3, 9, 3)
    dims: Sequence[int] = (96, 192, 384, 768)
    patch_size: int = 4
    conv_stem: Sequence[int] = ()
    layer_scale_init: float | None = 1e-6
    drop_path_rate: float = 0.1

    BLOCK = Block
    STAGE = "stages"
    NORM_EPS = EPS
    PARAMETERS = ParameterGroups(
        stem=r"stem(_[01])?", head=r"norm|head|outnorm\d+", images=r"(stem/)?stem_0/kernel",
        blocks=((r"stages_(\d+)/blocks_(\d+)/", lambda stage, block: (stage, block)), (r"stages_(\d+)/downsample_[01]/", lambda stage: (stage, 0))))

    def _stem(self, images, train):
        del train
        if self.conv_stem:
            x = ConvStem(self.conv_stem, self.patch_size, eps=EPS, name="stem", **self._dtypes)(images)
        else:
            x = normal_conv(self.dims[0], self.patch_size, self.patch_size, name="stem_0", **self._dtypes)(images)
            x = LayerNorm(EPS, name="stem_1", **self._dtypes)(x)
        probes.record(self, "stem_out", x)
        return x

    def _reduction(self, i):
        dtypes = self._dtypes

        def reduce(x, train):
            del train
            x = LayerNorm(EPS, name="downsample_0", **dtypes)(x)
            return normal_conv(self.dims[i], 2, 2, name="downsample_1", **dtypes)(x)

        return reduce if i else None

    def _blocks(self, i):
        return [dict(layer_scale_init=self.layer_scale_init, **self._dtypes)] * self.depths[i]

    def _pool(self, x, train):
        del train
        return self._normed(x.mean((1, 2)))

    def _check(self, images):
        super()._check(images)
        if self.conv_stem and self.conv_stem[-1] != self.dims[0]:
            raise ValueError(f"conv_stem={tuple(self.conv_stem)}: expected the first stage's width, {self.dims[0]}, as its last channels")
        smallest = self.patch_size * 2**(len(self.depths) - 1)
        if min(images.shape[1:3]) < smallest:
            raise ValueError(f"images.shape={images.shape}: expected sides of at least {smallest}, the network's stride")
