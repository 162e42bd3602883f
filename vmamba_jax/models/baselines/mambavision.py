"""MambaVision: convolutions at high resolution, then windows of tokens with selective scans and, in the second half of a stage, attention.

Source: Hatamizadeh and Kautz, arXiv 2407.08083, as its repository (NVlabs/MambaVision) has it.
"""
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

import pallas_kernels
from vmamba_jax.core import checks
from vmamba_jax.models.layers import attention, probes
from vmamba_jax.models.layers.common import MLP, DropPath, LayerNorm, LayerScale, batch_norm, conv, dense, silu, uniform
from vmamba_jax.models.layers.convolution import depthwise_conv
from vmamba_jax.models.layers.stages import ParameterGroups, StagedBackbone

TAPS = 3             # of the convolutions along the tokens
STATES = 8           # per channel
CONV_STAGES = 2      # stages of convolutions, before those of windows
STEM_EPS = 1e-4      # of the stem's batch norms
KINDS = ("conv", "mamba", "attention")


class Mixer(nn.Module):
    """out_proj([scan(x), z]), where x and z are the halves of a projection, each convolved along the tokens and activated: (b, L, C) -> (b, L, C).

    The released program adds the bias of the step size's projection twice, in the projection and in the scan, and so does this module.

    Attributes:
        scan_implementation: `implementation` of `pallas_kernels.selective_scan`.
        dtype: compute dtype (None: that of the input and parameters); the scan runs in at least float32.
        param_dtype: dtype of the parameters.
    """
    scan_implementation: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        options, channels = dict(dtype=self.dtype, param_dtype=self.param_dtype), x.shape[-1]
        rank, half = math.ceil(channels / 16), channels // 2
        x, z = jnp.split(dense(channels, use_bias=False, name="in_proj", **options)(x), 2, axis=-1)
        x = silu(TokenConv(name="conv1d_x", **options)(x))
        z = silu(TokenConv(name="conv1d_z", **options)(z))
        steps, B, C = jnp.split(dense(rank + 2 * STATES, use_bias=False, name="x_proj", **options)(x), [rank, rank + STATES], axis=-1)
        widen = dense(half, name="dt_proj", **options)
        raw, bias = widen(steps), widen.get_variable("params", "bias")
        log_range = lambda key, shape, dtype: jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype)), shape)
        logs = self.param("A_log", log_range, (half, STATES), self.param_dtype)
        D = self.param("D", nn.initializers.ones, (half,), self.param_dtype)
        A = -jnp.exp(logs.astype(jnp.promote_types(logs.dtype, jnp.float32)))
        y = pallas_kernels.selective_scan(x, raw, A, B[:, :, None], C[:, :, None], D, bias, implementation=self.scan_implementation)
        probes.record(self, "s", y)
        return dense(channels, use_bias=False, name="out_proj", **options)(jnp.concatenate([y.astype(z.dtype), z], -1))


class TokenConv(nn.Module):
    """Depth-wise convolution over each token and its two neighbors, (b, L, E) -> (b, L, E), without bias."""
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", uniform(TAPS**-0.5), (TAPS, 1, x.shape[-1]), self.param_dtype)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        return depthwise_conv(x[:, :, None], kernel[:, None])[:, :, 0]


class Block(nn.Module):
    """A block of maps ("conv"), x + DropPath(norm2(conv2(gelu(norm1(conv1(x)))))), or of tokens, x + DropPath(g mixer(norm1(x))), then the same of an MLP.

    Attributes:
        kind: one of KINDS; "mamba" and "attention" are the mixers of tokens.
        num_heads: of the attention.
        mlp_ratio: hidden width of the MLP over the block's.
        layer_scale: initial value of a learned factor g per channel of each branch of a block of tokens; None: no factor.
        drop_path: rate of the branches.
        scan_implementation, dtype, param_dtype: as for `Mixer`.
    """
    kind: str = "mamba"
    num_heads: int = 8
    mlp_ratio: float = 4.0
    layer_scale: float | None = None
    drop_path: float = 0.0
    scan_implementation: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        checks.choice("kind", self.kind, KINDS)
        options, channels = dict(dtype=self.dtype, param_dtype=self.param_dtype), x.shape[-1]
        drop = lambda y: DropPath(self.drop_path)(y, train)
        if self.kind == "conv":
            y = x
            for i in (1, 2):
                y = conv(channels, 3, 1, 1, bias_init=uniform((9 * channels)**-0.5), name=f"conv{i}", **options)(y)
                y = batch_norm(train, name=f"norm{i}", **options)(y)
                y = jax.nn.gelu(y, approximate=True) if i == 1 else y
            return x + drop(y)
        if self.kind == "attention":
            mixer = attention.Attention(self.num_heads, name="mixer", **options)
        else:
            mixer = Mixer(self.scan_implementation, name="mixer", **options)
        for i, branch in enumerate((mixer, MLP(int(channels * self.mlp_ratio), name="mlp", **options)), 1):
            y = branch(LayerNorm(name=f"norm{i}", **options)(x))
            x = x + drop(y if self.layer_scale is None else LayerScale(self.layer_scale, name=f"gamma_{i}", **options)(y))
        return x


class MambaVision(StagedBackbone):
    """MambaVision classifier or backbone: (b, H, W, in_channels) normalized images -> (b, num_classes) logits.

    The first two stages have blocks of convolutions. The others cut the map into windows, padded with zeros at the bottom and right, whose tokens
    are mixed by scans in the first half of the blocks and by attention in the second, the smaller one of an odd number. The other fields are those of
    `StagedBackbone`; `mutable=["intermediates"]` also returns every scan's output `s`.

    Attributes:
        depths, dims: blocks and width of each stage; every stage but the first halves the map, rounding up.
        stem_width: channels of the stem's first convolution.
        patch_size: stride of the stem: 4 (released), 2 or 1.
        num_heads, windows: heads, and side of a window in tokens, of each stage; those of the stages of convolutions are not used.
        mlp_ratio, layer_scale, scan_implementation: as for `Block`.

    Raises:
        ValueError: images of another rank or number of channels, or inconsistent fields.
    """
    depths: Sequence[int] = (1, 3, 8, 4)
    dims: Sequence[int] = (80, 160, 320, 640)
    stem_width: int = 32
    patch_size: int = 4
    num_heads: Sequence[int] = (2, 4, 8, 16)
    windows: Sequence[int] = (8, 8, 14, 7)
    mlp_ratio: float = 4.0
    layer_scale: float | None = None
    scan_implementation: str | None = None
    drop_path_rate: float = 0.2

    BLOCK = Block
    STAGE = "levels"
    PARAMETERS = ParameterGroups(
        stem=r"patch_embed", head=r"norm|head|outnorm\d+", ssm=("A_log", "D"), images="patch_embed/conv_down_0/kernel",
        blocks=((r"levels_(\d+)/blocks_(\d+)/", lambda stage, block: (stage, block)), (r"downsample_(\d+)/", lambda stage: (stage + 1, 0))))

    def _stem(self, images, train):
        x = Stem(self.stem_width, self.dims[0], self.patch_size, name="patch_embed", **self._dtypes)(images, train)
        probes.record(self, "stem_out", x)
        return x

    def _blocks(self, i):
        depth, shared = self.depths[i], dict(num_heads=self.num_heads[i], **{name: getattr(self, name) for name in (
            "mlp_ratio", "layer_scale", "scan_implementation")}, **self._dtypes)
        return [dict(shared, kind="conv" if i < CONV_STAGES else "mamba" if j < (depth + 1) // 2 else "attention") for j in range(depth)]

    def _apply_stage(self, i, blocks, x, train):
        if i < CONV_STAGES:
            return super()._apply_stage(i, blocks, x, train)
        window, (height, width) = self.windows[i], x.shape[1:3]
        x = attention.to_windowed_map(x, window, 0, "before_roll")
        padded = x.shape[1:3]
        x = super()._apply_stage(i, blocks, attention.partition(x, window), train)
        return attention.from_windowed_map(attention.merge(x, window, *padded), height, width, 0, "before_roll")

    def _after_stage(self, i, x, train):
        del train
        return conv(self.dims[i + 1], 3, 2, 1, name=f"downsample_{i}", **self._dtypes)(x) if i < len(self.depths) - 1 else x

    def _pool(self, x, train):
        x = batch_norm(train, name="norm", **self._dtypes)(x)
        probes.record(self, "final_norm", x)
        return x.mean((1, 2))

    def _check(self, images):
        super()._check(images)
        checks.choice("patch_size", self.patch_size, (4, 2, 1))
        checks.same_length(depths=self.depths, num_heads=self.num_heads)
        checks.same_length(depths=self.depths, windows=self.windows)
        for width, heads in list(zip(self.dims, self.num_heads, strict=True))[CONV_STAGES:]:
            if width % 2 or width % heads:
                raise ValueError(f"dims={tuple(self.dims)}: expected even widths that num_heads={tuple(self.num_heads)} divide, from stage {CONV_STAGES} on")


class Stem(nn.Module):
    """Two 3 x 3 convolutions of total stride patch_size, each with batch norm and ReLU."""
    width: int
    features: int
    patch_size: int = 4
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, features, stride in ((0, self.width, min(self.patch_size, 2)), (3, self.features, max(self.patch_size // 2, 1))):
            x = conv(features, 3, stride, 1, name=f"conv_down_{i}", **options)(x)
            x = jax.nn.relu(batch_norm(train, eps=STEM_EPS, name=f"conv_down_{i + 1}", **options)(x))
        return x
