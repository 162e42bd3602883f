"""Spatial-Mamba: one selective scan per block, whose hidden states are fused with their neighbors' by dilated convolutions.

Source: Xiao et al., arXiv 2410.15091, as its repository (EdwardChasel/Spatial-Mamba) has it.
"""
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

import pallas_kernels
from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import MLP, DepthwiseConv, DropPath, LayerNorm, batch_norm, conv, dense, silu, uniform
from vmamba_jax.models.layers.convolution import depthwise_conv
from vmamba_jax.models.layers.selective_ssm import step_bias
from vmamba_jax.models.layers.stages import ParameterGroups, StagedBackbone

EXPAND = 2  # inner width over the block's
DILATIONS = {"kernel_3": 1, "kernel_3_1": 3, "kernel_3_2": 5}  # name of the kernel -> its dilation
PADDINGS = ("released", "edge", "zeros")


class StateFusion(nn.Module):
    """sum_d alpha_d K_d * h over the dilations d = 1, 3, 5 of depth-wise 3 x 3 kernels: (b, H, W, E) -> (b, H, W, E).

    Attributes:
        padding: outside of the map: "edge" the nearest states, "zeros", or "released": edge in training and zeros otherwise, since the released program
            merges the three kernels into one convolution of 11 x 11 with zero padding when it evaluates.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    padding: str = "released"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h, train=False):
        checks.choice("fusion_padding", self.padding, PADDINGS)
        kernels = [self.param(name, nn.initializers.ones, (3, 3, 1, h.shape[-1]), self.param_dtype) for name in DILATIONS]
        alpha = self.param("alpha", nn.initializers.ones, (len(DILATIONS),), self.param_dtype)
        h, alpha, *kernels = nn.dtypes.promote_dtype(h, alpha, *kernels, dtype=self.dtype)
        reach = max(DILATIONS.values()) if self.padding == "edge" or (self.padding == "released" and train) else 0
        wide = jnp.pad(h, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge") if reach else h
        fused = sum(depthwise_conv(wide, alpha[i] * kernel, dilation) for i, (kernel, dilation) in enumerate(zip(kernels, DILATIONS.values(), strict=True)))
        return fused[:, reach:-reach, reach:-reach] if reach else fused


class StructureAwareSSM(nn.Module):
    """Mixer: y = C * fusion(h) + D * u, where h is the state, one number per channel, of a selective scan over the map's rows: (b, H, W, C) -> (b, H, W, C).

    u = silu(conv2d(x)) and the gate z come from one projection of the input; the output is out_proj(out_norm(y) * silu(z)).

    Attributes:
        fusion_padding: `padding` of `StateFusion`.
        scan_implementation: `implementation` of `pallas_kernels.selective_scan`.
        dtype: compute dtype (None: that of the input and parameters); scan, fusion and norm run in at least float32.
        param_dtype: dtype of the parameters.
    """
    fusion_padding: str = "released"
    scan_implementation: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options, channels = dict(dtype=self.dtype, param_dtype=self.param_dtype), x.shape[-1]
        inner = EXPAND * channels
        x, z = jnp.split(dense(2 * inner, use_bias=False, name="in_proj", **options)(x), 2, axis=-1)
        u = silu(DepthwiseConv(3, name="conv2d", **options)(x))
        h, C, D = self._states(u, math.ceil(channels / 16))
        probes.record(self, "h", h)
        fused = StateFusion(self.fusion_padding, param_dtype=self.param_dtype, name="state_fusion")(h, train)
        probes.record(self, "fused", fused)
        y = LayerNorm(param_dtype=self.param_dtype, name="out_norm")(fused * C + u * D).astype(u.dtype)
        return dense(channels, use_bias=False, name="out_proj", **options)(y * silu(z))

    def _states(self, u, rank):
        """Hidden states h (b, H, W, E), C (b, H, W, 1) and the skip D (E,)."""
        b, height, width, inner = u.shape
        param = lambda name, init, *shape: self.param(name, init, shape, self.param_dtype)
        X, W = param("x_proj_weight", uniform(inner**-0.5), rank + 2, inner), param("dt_projs_weight", uniform(rank**-0.5), inner, rank)
        bias, logs, D = param("dt_projs_bias", step_bias, inner), param("A_logs", nn.initializers.zeros, inner, 1), param("Ds", nn.initializers.ones, inner)
        u, X, W = nn.dtypes.promote_dtype(u, X, W, dtype=self.dtype)
        sequence = u.reshape(b, height * width, inner)
        steps, B, C = jnp.split(sequence @ X.T, [rank, rank + 1], axis=-1)
        A = -jnp.exp(logs.astype(jnp.promote_types(logs.dtype, jnp.float32)))
        h = pallas_kernels.selective_scan(sequence, steps @ W.T, A, B[:, :, None], jnp.ones_like(B)[:, :, None], None, bias,
                                          implementation=self.scan_implementation)  # with C = 1 the output is the state
        return h.reshape(u.shape), C.reshape(b, height, width, 1), D


class Block(nn.Module):
    """x + conv(x), + DropPath(mixer(norm)), + conv, + DropPath(MLP(norm)), each of the sum so far; the convolutions are depth-wise 3 x 3.

    Attributes:
        mlp_ratio: hidden width of the MLP over the block's.
        drop_path: rate of the two branches with a norm.
        fusion_padding, scan_implementation, dtype, param_dtype: as for `StructureAwareSSM`.
    """
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    fusion_padding: str = "released"
    scan_implementation: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = x + DepthwiseConv(3, name="cpe1", **options)(x)
        mixer = StructureAwareSSM(self.fusion_padding, self.scan_implementation, name="self_attention", **options)
        x = x + DropPath(self.drop_path)(mixer(LayerNorm(name="ln_1", **options)(x), train), train)
        x = x + DepthwiseConv(3, name="cpe2", **options)(x)
        mlp = MLP(int(x.shape[-1] * self.mlp_ratio), name="mlp", **options)
        return x + DropPath(self.drop_path)(mlp(LayerNorm(name="ln_2", **options)(x)), train)


class SpatialMamba(StagedBackbone):
    """Spatial-Mamba classifier or backbone: (b, H, W, in_channels) normalized images -> (b, num_classes) logits.

    The other fields are those of `StagedBackbone`; `mutable=["intermediates"]` also returns every block's states before (`h`) and after (`fused`) the
    fusion. Stem and downsampling have batch norms.

    Attributes:
        depths, dims: blocks and width of each stage; every stage but the first halves the map, rounding up.
        patch_size: stride of the stem: 4 (released), 2 or 1.
        mlp_ratio, fusion_padding, scan_implementation: as for `Block`.

    Raises:
        ValueError: images of another rank or number of channels, or inconsistent fields.
    """
    depths: Sequence[int] = (2, 4, 8, 4)
    dims: Sequence[int] = (64, 128, 256, 512)
    patch_size: int = 4
    mlp_ratio: float = 4.0
    fusion_padding: str = "released"
    scan_implementation: str | None = None
    drop_path_rate: float = 0.2

    BLOCK = Block
    PARAMETERS = ParameterGroups(
        stem=r"patch_embed", head=r"norm|head|outnorm\d+", ssm=("A_logs", "Ds", "dt_projs_bias"), images="patch_embed/conv1/conv/kernel",
        blocks=((r"layers_(\d+)/blocks_(\d+)/", lambda stage, block: (stage, block)), (r"downsample_(\d+)/", lambda stage: (stage + 1, 0))))

    def _stem(self, images, train):
        x = Stem(self.dims[0], self.patch_size, name="patch_embed", **self._dtypes)(images, train)
        probes.record(self, "stem_out", x)
        return x

    def _blocks(self, i):
        return [{name: getattr(self, name) for name in ("mlp_ratio", "fusion_padding", "scan_implementation")} | self._dtypes] * self.depths[i]

    def _after_stage(self, i, x, train):
        return Reduction(self.dims[i + 1], name=f"downsample_{i}", **self._dtypes)(x, train) if i < len(self.depths) - 1 else x

    def _check(self, images):
        super()._check(images)
        checks.choice("patch_size", self.patch_size, (4, 2, 1))
        checks.choice("fusion_padding", self.fusion_padding, PADDINGS)


class ConvLayer(nn.Module):
    """Convolution, then batch norm (`norm`), then ReLU (`act`).

    Attributes:
        features, kernel_size, stride: of the convolution, padded by kernel_size // 2.
        use_bias, norm, act: parts that the layer has.
        depthwise: one group per channel, of the same number of channels.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    features: int
    kernel_size: int
    stride: int = 1
    use_bias: bool = False
    norm: bool = True
    act: bool = True
    depthwise: bool = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        options, size = dict(dtype=self.dtype, param_dtype=self.param_dtype, name="conv"), self.kernel_size
        if self.depthwise:
            x = DepthwiseConv(size, self.use_bias, stride=self.stride, **options)(x)
        else:
            bias_init = uniform((size**2 * x.shape[-1])**-0.5) if self.use_bias else None
            x = conv(self.features, size, self.stride, size // 2, bias_init=bias_init, **options)(x)
        options["name"] = "norm"
        x = batch_norm(train, **options)(x) if self.norm else x
        return jax.nn.relu(x) if self.act else x


class Stem(nn.Module):
    """Convolutions of total stride patch_size: one, a residual pair, and one to four times the width with a 1 x 1 convolution back."""
    features: int
    patch_size: int = 4
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        options, half = dict(dtype=self.dtype, param_dtype=self.param_dtype), self.features // 2
        x = ConvLayer(half, 3, min(self.patch_size, 2), name="conv1", **options)(x, train)
        y = ConvLayer(half, 3, name="conv2_0", **options)(x, train)
        x = x + ConvLayer(half, 3, act=False, name="conv2_1", **options)(y, train)
        x = ConvLayer(4 * self.features, 3, max(self.patch_size // 2, 1), name="conv3_0", **options)(x, train)
        return ConvLayer(self.features, 1, act=False, name="conv3_1", **options)(x, train)


class Reduction(nn.Module):
    """1 x 1 convolution to four times the next width, depth-wise 3 x 3 convolution of stride 2, 1 x 1 convolution and batch norm."""
    features: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        options, wide = dict(use_bias=True, dtype=self.dtype, param_dtype=self.param_dtype), 4 * self.features
        x = ConvLayer(wide, 1, norm=False, name="conv_0", **options)(x, train)
        x = ConvLayer(wide, 3, 2, norm=False, depthwise=True, name="conv_1", **options)(x, train)
        return ConvLayer(self.features, 1, act=False, name="conv_2", **options)(x, train)
