"""Swin: a four-stage transformer whose attention stays within windows that shift from block to block (Liu et al., arXiv 2103.14030)."""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.models.baselines.vit import Attention
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import MLP, DropPath, LayerNorm, conv, dense, dense_init
from vmamba_jax.models.layers.windows import PADDINGS, enter, leave, merge, partition, relative_position_index, shift_mask, stage_windows
from vmamba_jax.models.vmamba.vmamba import Downsample


class Swin(nn.Module):
    """Swin classifier or backbone: (b, H, W, in_channels) normalised images of any size -> (b, num_classes) logits.

    `mutable=["intermediates"]` gives every block's attention probabilities as layers_s/blocks_i/attn/attention, (b * windows, heads, n, n) with
    n = window^2 tokens, the windows of an image in rows and one image after another; positions are those of the shifted and padded map.

    Attributes:
        num_classes: width of the head; 0 returns the pooled features.
        embed_dim: width of the first stage; it doubles from stage to stage.
        depths, num_heads: blocks and heads of each stage.
        window_size: side of a window in tokens; every other block shifts the windows by half of it.
        mlp_ratio: hidden width of the MLP over the block's.
        patch_size: side of a patch in pixels; images whose sides it does not divide are zero-padded at their bottom and right.
        qkv_bias: bias of the q, k, v projection.
        always_partition: keep window_size and the shift where the map is no larger than a window (detection's code bases); else the window
            shrinks to the map and does not shift.
        padding: where window_size does not divide the map: "after_roll" shifts it, then pads (timm); "before_roll" pads, then shifts
            (detection's code bases). Padded tokens are keys like the others, but for the shift's mask.
        image_size: the side that windows and shifts, and with them the parameters' shapes, are made for; they hold for every size called with.
        drop_path_rate: rises linearly from 0 to this over the blocks.
        remat: recompute each block's activations in the backward pass.
        out_indices: if not empty, return these stages' maps (b, H_i, W_i, C_i), before their merging, each behind a layer norm of its own.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters'.

    Raises:
        ValueError: images of another rank or number of channels, or fields that do not go together.
    """
    num_classes: int = 1000
    embed_dim: int = 96
    depths: Sequence[int] = (2, 2, 6, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    patch_size: int = 4
    qkv_bias: bool = True
    always_partition: bool = False
    padding: str = "after_roll"
    in_channels: int = 3
    image_size: int = 224
    drop_path_rate: float = 0.2
    remat: bool = False
    out_indices: Sequence[int] = ()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        self._check(images)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = PatchEmbed(self.embed_dim, self.patch_size, name="patch_embed", **options)(images)
        probes.record(self, "patch_embed_out", x)
        windows = stage_windows(self.image_size // self.patch_size, self.window_size, len(self.depths), self.always_partition)
        rates, maps = iter(np.linspace(0, self.drop_path_rate, sum(self.depths)).tolist()), []
        for i, (depth, (window, shift)) in enumerate(zip(self.depths, windows, strict=True)):
            block = dict(num_heads=self.num_heads[i], window=window, padding=self.padding, mlp_ratio=self.mlp_ratio, qkv_bias=self.qkv_bias,
                         **options)
            width = self.embed_dim * 2**i if i else 0
            x = Stage(tuple(next(rates) for _ in range(depth)), shift, block, width, self.remat, name=f"layers_{i}")(x, train)
            probes.record(self, f"stage{i}_blocks", x)
            if i in self.out_indices:
                maps.append(LayerNorm(name=f"outnorm{i}", **options)(x))
        if self.out_indices:
            return maps
        x = LayerNorm(name="norm", **options)(x)
        probes.record(self, "final_norm", x)
        x = x.mean((1, 2))
        return dense(self.num_classes, name="head", **options)(x) if self.num_classes else x

    def _check(self, images):
        checks.images(images, self.in_channels)
        checks.number("drop_path_rate", self.drop_path_rate, low=0, below=1)
        checks.choice("padding", self.padding, PADDINGS)
        checks.same_length(depths=self.depths, num_heads=self.num_heads)
        checks.stages(self.out_indices, len(self.depths))
        if any(self.embed_dim * 2**i % heads for i, heads in enumerate(self.num_heads)):
            raise ValueError(f"num_heads={tuple(self.num_heads)}; expected divisors of the widths {self.embed_dim} * 2^stage")
        if self.window_size < 1:
            raise ValueError(f"window_size={self.window_size}; expected at least 1")
        if self.image_size % self.patch_size or self.image_size < self.patch_size:
            raise ValueError(f"image_size={self.image_size}; expected a multiple of patch_size={self.patch_size}")


class PatchEmbed(nn.Module):
    """(b, H, W, in) -> (b, ceil(H / patch), ceil(W / patch), features): one linear map of each patch, then a layer norm."""
    features: int
    patch_size: int
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        options, patch = dict(dtype=self.dtype, param_dtype=self.param_dtype), self.patch_size
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % patch), (0, -x.shape[2] % patch), (0, 0)))
        x = conv(self.features, patch, patch, 0, patch**2 * x.shape[-1], name="proj", **options)(x)
        return LayerNorm(name="norm", **options)(x)


class Stage(nn.Module):
    """The blocks of one resolution, behind the merging of 2 x 2 tokens that leads to it (width 0: none)."""
    drop_paths: Sequence[float]
    shift: int
    block: dict
    width: int = 0
    remat: bool = False

    @nn.compact
    def __call__(self, x, train):
        if self.width:
            x = Downsample(self.width, "v1", "layer_norm", self.block["dtype"], self.block["param_dtype"], name="downsample")(x, train)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i, rate in enumerate(self.drop_paths):
            x = block(shift=self.shift * (i % 2), drop_path=rate, name=f"blocks_{i}", **self.block)(x, train)
        return x


class Block(nn.Module):
    """x + DropPath(WindowAttention(norm1(x))), then x + DropPath(MLP(norm2(x)))."""
    num_heads: int
    window: int
    shift: int = 0
    padding: str = "after_roll"
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path: float = 0.0
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        attention = WindowAttention(self.num_heads, self.qkv_bias, window=self.window, shift=self.shift, padding=self.padding, name="attn", **options)
        x = x + DropPath(self.drop_path)(attention(LayerNorm(name="norm1", **options)(x)), train)
        mlp = MLP(int(x.shape[-1] * self.mlp_ratio), name="mlp", **options)
        return x + DropPath(self.drop_path)(mlp(LayerNorm(name="norm2", **options)(x)), train)


class WindowAttention(Attention):
    """Self-attention within the windows of a map, (b, H, W, C) -> (b, H, W, C); a learned bias for each offset between query and key."""
    window: int = 7
    shift: int = 0
    padding: str = "after_roll"

    @nn.compact
    def __call__(self, x):
        window, (height, width) = self.window, x.shape[1:3]
        x = enter(x, window, self.shift, self.padding)
        padded = x.shape[1:3]
        table = self.param("relative_position_bias_table", dense_init, ((2 * window - 1)**2, self.num_heads), self.param_dtype)
        bias = jnp.moveaxis(table[relative_position_index(window)], -1, 0)                # (heads, n, n)
        if self.shift:
            bias = bias + shift_mask(*padded, window, self.shift)[:, None]                # (windows, heads, n, n)
            bias = jnp.tile(bias, (len(x), 1, 1, 1))                                      # once for each image
        x = merge(super().__call__(partition(x, window), bias), window, *padded)
        return leave(x, height, width, self.shift, self.padding)
