"""MambaOut: gated convolution blocks, which are Mamba's without its scan. It is the control for statements about the scan.

Source: Yu and Wang, arXiv 2405.07992; timm's mambaout.py, whose second head, downsampling and layer scale are those of its "_rw" models.
"""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import DepthwiseConv, DropPath, LayerNorm, LayerScale, activation, dense, dense_init, normal_conv
from vmamba_jax.models.layers.stages import ParameterGroups, StagedBackbone

EPS = 1e-6


class GatedConv(nn.Module):
    """x + DropPath(ls * fc2(act(g) * [i, conv(c)])), where [g, i, c] = fc1(norm(x)) and conv is depth-wise.

    Attributes:
        expansion_ratio, conv_ratio: width of the gate, and number of convolved channels, over the block's width.
        kernel_size: odd side of the convolution's kernel.
        act: name of the gate's activation.
        layer_scale_init: initial value of a learned factor per channel of the branch; None: no factor.
        drop_path: rate of the branch.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    expansion_ratio: float = 8 / 3
    conv_ratio: float = 1.0
    kernel_size: int = 7
    act: str = "gelu"
    layer_scale_init: float | None = None
    drop_path: float = 0.0
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options, channels = dict(dtype=self.dtype, param_dtype=self.param_dtype), x.shape[-1]
        hidden, convolved = int(self.expansion_ratio * channels), int(self.conv_ratio * channels)
        if not 0 < convolved <= hidden:
            raise ValueError(f"conv_ratio={self.conv_ratio}: expected 1 to {hidden} of the {channels} channels, the gate's width")
        y = dense(2 * hidden, name="fc1", **options)(LayerNorm(EPS, name="norm", **options)(x))
        gate, untouched, mixed = jnp.split(y, (hidden, 2 * hidden - convolved), axis=-1)
        mixed = DepthwiseConv(self.kernel_size, kernel_init=dense_init, name="conv", **options)(mixed)
        probes.record(self, "gate", gate)
        y = dense(channels, name="fc2", **options)(activation(self.act)(gate) * jnp.concatenate([untouched, mixed], -1))
        if self.layer_scale_init is not None:
            y = LayerScale(self.layer_scale_init, name="ls", **options)(y)
        return x + DropPath(self.drop_path)(y, train)


class MambaOut(StagedBackbone):
    """MambaOut classifier or backbone: (b, H, W, in_channels) normalized images -> (b, num_classes) logits.

    The other fields are those of `StagedBackbone`; `mutable=["intermediates"]` also returns every block's gate before its activation.

    Attributes:
        depths, dims: blocks and width of each stage; every stage but the first halves the map, rounding up.
        patch_size: stride of the stem: 4 (timm's), 2 or 1.
        expansion_ratio, conv_ratio, kernel_size, act, layer_scale_init: as for `GatedConv`; `act` is also the stem's.
        stem_norm: norm between the stem's two convolutions.
        norm_first: norm before the convolution between two stages, not after it.
        head_norm: norm after the head's hidden layer; the head is mean, norm, linear, GELU, this norm, linear.

    Raises:
        ValueError: images of another rank or number of channels, or inconsistent fields.
    """
    depths: Sequence[int] = (3, 3, 9, 3)
    dims: Sequence[int] = (96, 192, 384, 576)
    patch_size: int = 4
    expansion_ratio: float = 8 / 3
    conv_ratio: float = 1.0
    kernel_size: int = 7
    act: str = "gelu"
    layer_scale_init: float | None = None
    stem_norm: bool = True
    norm_first: bool = False
    head_norm: bool = True

    BLOCK = GatedConv
    STAGE = "stages"
    NORM_EPS = EPS
    HIDDEN = 4  # width of the head's hidden layer over the last stage's
    PARAMETERS = ParameterGroups(
        stem=r"stem", head=r"norm|hidden|hidden_norm|head|outnorm\d+", images="stem/conv1/kernel",
        blocks=((r"stages_(\d+)/blocks_(\d+)/", lambda stage, block: (stage, block)), (r"stages_(\d+)/downsample/", lambda stage: (stage, 0))))

    def _stem(self, images, train):
        del train
        x = Stem(self.dims[0], self.patch_size, self.act, self.stem_norm, name="stem", **self._dtypes)(images)
        probes.record(self, "stem_out", x)
        return x

    def _reduction(self, i):
        def reduce(x, train):
            del train
            return Reduction(self.dims[i], self.norm_first, name="downsample", **self._dtypes)(x)

        return reduce if i else None

    def _blocks(self, i):
        fields = {field: getattr(self, field) for field in ("expansion_ratio", "conv_ratio", "kernel_size", "act", "layer_scale_init")}
        return [fields | self._dtypes] * self.depths[i]

    def _pool(self, x, train):
        del train
        x = self._normed(x.mean((1, 2)))
        x = activation("gelu")(dense(self.HIDDEN * x.shape[-1], name="hidden", **self._dtypes)(x))
        return LayerNorm(EPS, name="hidden_norm", **self._dtypes)(x) if self.head_norm else x

    def _check(self, images):
        super()._check(images)
        checks.choice("patch_size", self.patch_size, (4, 2, 1))


class Stem(nn.Module):
    """Two 3 x 3 convolutions of total stride patch_size, with norm and activation between them and a norm at the end."""
    features: int
    patch_size: int = 4
    act: str = "gelu"
    inner_norm: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = normal_conv(self.features // 2, 3, min(self.patch_size, 2), 1, name="conv1", **options)(x)
        x = LayerNorm(EPS, name="norm1", **options)(x) if self.inner_norm else x
        x = normal_conv(self.features, 3, max(self.patch_size // 2, 1), 1, name="conv2", **options)(activation(self.act)(x))
        return LayerNorm(EPS, name="norm2", **options)(x)


class Reduction(nn.Module):
    """Norm and 3 x 3 convolution of stride 2, in this order (`norm_first`) or the other."""
    features: int
    norm_first: bool = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        norm, reduce = LayerNorm(EPS, name="norm", **options), normal_conv(self.features, 3, 2, 1, name="conv", **options)
        return reduce(norm(x)) if self.norm_first else norm(reduce(x))
