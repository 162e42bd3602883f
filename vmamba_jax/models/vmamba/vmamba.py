"""VMamba: a four-stage backbone of SS2D blocks (Liu et al., arXiv 2401.10166), every released variant."""
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import MLP, DropPath, activation, conv, dense, norm
from vmamba_jax.models.layers.patches import resize_grid
from vmamba_jax.models.vmamba.ss2d import SS2D

PATCH_EMBEDS = ("v1", "v2")
DOWNSAMPLES = ("v1", "v2", "v3")
NORMS = ("layer_norm", "batch_norm")


class VMamba(nn.Module):
    """VMamba classifier or backbone: (b, H, W, in_channels) normalised images -> (b, num_classes) logits.

    Attributes:
        num_classes: width of the head; 0 returns the pooled features.
        depths, dims: blocks and width of each stage.
        patch_size: total stride of the patch embedding.
        in_channels: channels of the images.
        d_state, ssm_ratio, dt_rank, ssm, ssm_act, conv_size, conv_bias, gate, gate_act, out_act, out_norm, scan_pattern, ssm_init: see `SS2D`;
            ssm_ratio 0 leaves the mixer out.
        mlp_ratio: hidden width of the MLP over the block's; 0 leaves it out. mlp_act, gated_mlp: see `MLP`.
        patch_embed: "v1" one patch_size x patch_size convolution; "v2" two 3x3 convolutions (patch_size 4, 2 or 1).
        patch_norm: normalise inside the patch embedding.
        downsample: "v1" patch merging, "v2" 2x2 or "v3" 3x3 convolution of stride 2.
        norm: "layer_norm" or "batch_norm"; the scan's output norm is a layer norm either way.
        pos_embed, image_size: add a learned embedding of the grid that image_size has; other sizes resize it bicubically.
        drop_path_rate: rises linearly from 0 to this over the blocks.
        remat: recompute each block's activations in the backward pass.
        out_indices: if not empty, return these stages' maps (b, H_i, W_i, C_i), before their downsampling, each behind a layer norm of its own.
        stop_gradients, perturbed: named hidden states, see `states`.
        stop_blocks: where stop_gradients acts: None everywhere, or a tuple of stage numbers and (stage, block) pairs.
        scan_implementation: backend of the scan.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters'.
    """
    num_classes: int = 1000
    depths: Sequence[int] = (2, 2, 8, 2)
    dims: Sequence[int] = (96, 192, 384, 768)
    patch_size: int = 4
    in_channels: int = 3
    ssm: str = "mamba1"
    d_state: int = 1
    ssm_ratio: float = 1.0
    dt_rank: int | None = None
    ssm_act: str = "silu"
    conv_size: int = 3
    conv_bias: bool = False
    gate: bool = False
    gate_act: bool = True
    out_act: bool = False
    out_norm: str = "layer_norm"
    scan_pattern: str | tuple | Callable = "cross"
    ssm_init: str = "v0"
    mlp_ratio: float = 4.0
    mlp_act: str = "gelu"
    gated_mlp: bool = False
    patch_embed: str = "v2"
    patch_norm: bool = True
    downsample: str = "v3"
    norm: str = "layer_norm"
    pos_embed: bool = False
    image_size: int = 224
    drop_path_rate: float = 0.2
    remat: bool = False
    out_indices: Sequence[int] = ()
    stop_gradients: tuple = ()
    stop_blocks: tuple | None = None
    perturbed: tuple = ()
    scan_implementation: str | None = None
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        self._check(images)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = PatchEmbed(self.dims[0], self.patch_size, self.patch_embed, self.patch_norm, self.norm, name="patch_embed", **options)(images, train)
        probes.record(self, "patch_embed_out", x)
        if self.pos_embed:
            grid = self.image_size // self.patch_size
            embedding = self.param("pos_embed", nn.initializers.normal(0.02), (1, grid, grid, self.dims[0]), self.param_dtype)
            x = x + resize_grid(embedding, *x.shape[1:3]).astype(x.dtype)

        rates = iter(np.linspace(0, self.drop_path_rate, sum(self.depths)).tolist())
        maps, stopped = [], probes.chosen_blocks("stop_blocks", self.stop_blocks, self.depths)
        for i, depth in enumerate(self.depths):
            stage = Stage(tuple(next(rates) for _ in range(depth)), self._block_options(), self.remat, tuple(sorted(stopped[i])), name=f"layers_{i}")
            x = stage(x, train)
            probes.record(self, f"stage{i}_blocks", x)
            if i in self.out_indices:
                maps.append(norm("layer_norm", train=train, name=f"outnorm{i}", **options)(x))
            if i < len(self.depths) - 1:
                x = Downsample(self.dims[i + 1], self.downsample, self.norm, name=f"downsample_{i}", **options)(x, train)
            probes.record(self, f"stage{i}_out", x)
        if self.out_indices:
            return maps
        x = norm(self.norm, train=train, name="norm", **options)(x)
        probes.record(self, "final_norm", x)
        x = x.mean((1, 2))
        return dense(self.num_classes, name="head", **options)(x) if self.num_classes else x

    def _block_options(self):
        own = dict(ssm=self.ssm, d_state=self.d_state, ssm_ratio=self.ssm_ratio, dt_rank=self.dt_rank, act=self.ssm_act,
                   conv_size=self.conv_size, conv_bias=self.conv_bias, gate=self.gate, gate_act=self.gate_act, out_act=self.out_act,
                   out_norm=self.out_norm, scan_pattern=self.scan_pattern, ssm_init=self.ssm_init, stop_gradients=self.stop_gradients,
                   perturbed=self.perturbed, scan_implementation=self.scan_implementation, dtype=self.dtype, param_dtype=self.param_dtype)
        return dict(mixer=own, mlp_ratio=self.mlp_ratio, mlp_act=self.mlp_act, gated_mlp=self.gated_mlp, norm=self.norm)

    def _check(self, images):
        checks.images(images, self.in_channels)
        checks.same_length(depths=self.depths, dims=self.dims)
        for field, value, known in (("patch_embed", self.patch_embed, PATCH_EMBEDS), ("downsample", self.downsample, DOWNSAMPLES),
                                    ("norm", self.norm, NORMS)):
            checks.choice(field, value, known)
        checks.number("drop_path_rate", self.drop_path_rate, low=0, below=1)
        checks.stages(self.out_indices, len(self.depths))
        probes.check_names("stop_gradients", self.stop_gradients, probes.STOPPABLE)
        activation(self.ssm_act), activation(self.mlp_act)
        smallest = self.patch_size * (2**(len(self.depths) - 1) if self.downsample == "v2" else 1) if self.patch_embed == "v1" else 1
        if min(images.shape[1:3]) < smallest:
            raise ValueError(f"images have shape {images.shape}; expected sides of at least {smallest} for this patch embedding and downsampling")


class PatchEmbed(nn.Module):
    """(b, H, W, in) -> (b, H / patch, W / patch, features)."""
    features: int
    patch_size: int
    version: str
    use_norm: bool
    norm: str
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normalise = lambda x, name: norm(self.norm, train=train, name=name, **options)(x) if self.use_norm else x
        if self.version == "v1":
            x = conv(self.features, self.patch_size, self.patch_size, 0, self.patch_size**2 * x.shape[-1], name="conv1", **options)(x)
            return normalise(x, "norm1")
        if self.patch_size not in (1, 2, 4):
            raise ValueError(f"patch_size={self.patch_size} with patch_embed='v2'; expected 4 (the original's), 2 or 1")
        half = self.features // 2
        x = conv(half, 3, min(self.patch_size, 2), 1, 9 * x.shape[-1], name="conv1", **options)(x)
        x = activation("gelu")(normalise(x, "norm1"))
        x = conv(self.features, 3, max(self.patch_size // 2, 1), 1, 9 * half, name="conv2", **options)(x)
        return normalise(x, "norm2")


class Downsample(nn.Module):
    """(b, H, W, C) -> (b, H / 2, W / 2, features); odd sides round up for v1 and v3, down for v2."""
    features: int
    version: str
    norm: str
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        if self.version == "v1":
            x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
            x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)
            x = norm(self.norm, train=train, name="norm", **options)(x)
            return dense(self.features, use_bias=False, name="reduction", **options)(x)
        size, padding = (2, 0) if self.version == "v2" else (3, 1)
        x = conv(self.features, size, 2, padding, size**2 * x.shape[-1], name="conv", **options)(x)
        return norm(self.norm, train=train, name="norm", **options)(x)


class Stage(nn.Module):
    """The blocks of one resolution; gradients are stopped in those that `stopped` counts."""
    drop_paths: Sequence[float]
    block: dict
    remat: bool = False
    stopped: tuple = ()

    @nn.compact
    def __call__(self, x, train):
        block = nn.remat(VSSBlock, static_argnums=(2,)) if self.remat else VSSBlock
        whole = {**self.block, "mixer": {**self.block["mixer"], "stop_gradients": ()}}
        for i, rate in enumerate(self.drop_paths):
            x = block(drop_path=rate, name=f"blocks_{i}", **(self.block if i in self.stopped else whole))(x, train)
        return x


class VSSBlock(nn.Module):
    """x + DropPath(SS2D(norm(x))), then x + DropPath(MLP(norm2(x))).

    Attributes:
        mixer: fields of `SS2D`; ssm_ratio 0 leaves it out.
        mlp_ratio, mlp_act, gated_mlp: the MLP's; ratio 0 leaves it out.
        drop_path: rate of both branches, drawn independently.
    """
    mixer: dict
    mlp_ratio: float = 4.0
    mlp_act: str = "gelu"
    gated_mlp: bool = False
    norm: str = "layer_norm"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        options = dict(dtype=self.mixer.get("dtype"), param_dtype=self.mixer.get("param_dtype", jnp.float32))
        normalise = lambda x, name: norm(self.norm, train=train, name=name, **options)(x)
        if self.mixer.get("ssm_ratio", 1.0) > 0:
            x = x + DropPath(self.drop_path)(SS2D(name="op", **self.mixer)(normalise(x, "norm")), train)
        if self.mlp_ratio > 0:
            mlp = MLP(int(x.shape[-1] * self.mlp_ratio), self.mlp_act, self.gated_mlp, name="mlp", **options)
            x = x + DropPath(self.drop_path)(mlp(normalise(x, "norm2")), train)
        return x
