"""Swin: a four-stage transformer with attention within windows that shift from block to block.

Source: Liu et al., arXiv 2103.14030.
"""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.attention import PADDINGS, WindowAttention, stage_windows
from vmamba_jax.models.layers.common import MLP, DropPath, LayerNorm, conv, uniform
from vmamba_jax.models.layers.patches import Downsample
from vmamba_jax.models.layers.stages import ParameterGroups, StagedBackbone


class Block(nn.Module):
    """x + DropPath(WindowAttention(norm1(x))), then x + DropPath(MLP(norm2(x)))."""
    num_heads: int
    window: int
    shift: int = 0
    padding: str = "after_roll"
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path: float = 0.0
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        attention = WindowAttention(self.num_heads, self.qkv_bias, window=self.window, shift=self.shift, padding=self.padding, name="attn", **options)
        x = x + DropPath(self.drop_path)(attention(LayerNorm(name="norm1", **options)(x)), train)
        mlp = MLP(int(x.shape[-1] * self.mlp_ratio), name="mlp", **options)
        return x + DropPath(self.drop_path)(mlp(LayerNorm(name="norm2", **options)(x)), train)


class Swin(StagedBackbone):
    """Swin classifier or backbone: (b, H, W, in_channels) normalized images of any size -> (b, num_classes) logits.

    `mutable=["intermediates"]` returns every block's attention probabilities as layers_s/blocks_i/attn/attention, (b * windows, heads, n, n) with
    n = window^2 tokens: the windows of an image in rows, one image after the other. Positions are those of the shifted and padded map.

    The other fields are those of `StagedBackbone`.

    Attributes:
        embed_dim: width of the first stage; it doubles from stage to stage.
        depths, num_heads: blocks and heads of each stage.
        window_size: side of a window in tokens; every second block shifts the windows by half of it.
        mlp_ratio: hidden width of the MLP over the block's.
        patch_size: side of a patch in pixels; images with other sides are zero-padded at their bottom and right.
        qkv_bias: bias of the q, k, v projection.
        always_partition: True: window_size and shift stay on maps no larger than a window (detection code bases). False: the window shrinks to
            the map and does not shift.
        padding: order of the two steps if window_size does not divide the map: "after_roll" shifts the map, then pads it (timm); "before_roll"
            pads, then shifts (detection code bases). Padded tokens are keys like the others, except for the shift's mask.
        image_size: side that determines windows and shifts, and thereby the parameters' shapes; images of all sizes use the same ones.

    Raises:
        ValueError: images of another rank or number of channels, or inconsistent fields.
    """
    embed_dim: int = 96
    depths: Sequence[int] = (2, 2, 6, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    patch_size: int = 4
    qkv_bias: bool = True
    always_partition: bool = False
    padding: str = "after_roll"
    image_size: int = 224
    drop_path_rate: float = 0.2

    BLOCK = Block
    PER_STAGE = ("depths", "num_heads")
    PARAMETERS = ParameterGroups(
        stem=r"patch_embed", head=r"norm|head|outnorm\d+", positions=("relative_position_bias_table",), images="patch_embed/proj/kernel",
        blocks=((r"layers_(\d+)/blocks_(\d+)/", lambda stage, block: (stage, block)), (r"layers_(\d+)/downsample/", lambda stage: (stage, 0))))

    def _stem(self, images, train):
        del train
        x = PatchEmbed(self.embed_dim, self.patch_size, name="patch_embed", **self._dtypes)(images)
        probes.record(self, "patch_embed_out", x)
        return x

    def _reduction(self, i):
        width, dtypes = self.embed_dim * 2**i, self._dtypes
        return (lambda x, train: Downsample(width, "v1", "layer_norm", name="downsample", **dtypes)(x, train)) if i else None

    def windows(self, i):
        """[(window, shift), ...] of the blocks of stage i, in tokens."""
        window, shift = stage_windows(self.image_size // self.patch_size, self.window_size, len(self.depths), self.always_partition)[i]
        return [(window, shift * (j % 2)) for j in range(self.depths[i])]

    def _blocks(self, i):
        shared = dict(num_heads=self.num_heads[i], padding=self.padding, mlp_ratio=self.mlp_ratio, qkv_bias=self.qkv_bias, **self._dtypes)
        return [dict(shared, window=window, shift=shift) for window, shift in self.windows(i)]

    def _check(self, images):
        super()._check(images)
        checks.choice("padding", self.padding, PADDINGS)
        checks.count("window_size", self.window_size)
        if any(self.embed_dim * 2**i % heads for i, heads in enumerate(self.num_heads)):
            raise ValueError(f"num_heads={tuple(self.num_heads)}: expected divisors of the widths {self.embed_dim} * 2^stage")
        if self.image_size % self.patch_size or self.image_size < self.patch_size:
            raise ValueError(f"image_size={self.image_size}: expected a multiple of patch_size={self.patch_size}")


class PatchEmbed(nn.Module):
    """Linear map of each patch, then a layer norm: (b, H, W, in) -> (b, ceil(H / patch_size), ceil(W / patch_size), features)."""
    features: int
    patch_size: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        options, patch = dict(dtype=self.dtype, param_dtype=self.param_dtype), self.patch_size
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % patch), (0, -x.shape[2] % patch), (0, 0)))
        x = conv(self.features, patch, patch, bias_init=uniform((patch**2 * x.shape[-1])**-0.5), name="proj", **options)(x)
        return LayerNorm(name="norm", **options)(x)
