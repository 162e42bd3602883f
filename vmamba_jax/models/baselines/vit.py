"""ViT, DeiT and DINOv2: a plain transformer on patches.

Source: Dosovitskiy et al., arXiv 2010.11929; Touvron et al., arXiv 2012.12877; Oquab et al., arXiv 2304.07193.
"""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.attention import Attention
from vmamba_jax.models.layers.common import MLP, DropPath, LayerNorm, LayerScale, conv, dense, uniform
from vmamba_jax.models.layers.conv_stem import ConvStem
from vmamba_jax.models.layers.patches import resize_grid
from vmamba_jax.models.layers.stages import ParameterGroups, linear_rates, rematerialized

EPS = 1e-6


class ViT(nn.Module):
    """Vision transformer: (b, H, W, in_channels) normalized images -> (b, num_classes) logits. DeiT has the same graph and another training.

    `mutable=["intermediates"]` returns every block's attention probabilities as blocks_i/attn/attention, (b, heads, queries, keys), where token 0
    is the class token; they are differentiable.

    Attributes:
        num_classes: width of the head; 0 returns the class token's features.
        patch_size: side of a patch in pixels.
        conv_stem: channels of the 3 x 3 convolutions of a `ConvStem` (Singh et al., arXiv 2303.01870), which ends in a 1 x 1 convolution to
            embed_dim; (): one convolution of disjoint patches.
        embed_dim, depth, num_heads, mlp_ratio: width, blocks, heads of embed_dim / num_heads channels, hidden width of the MLP over the width.
        qkv_bias: bias of the q, k, v projection.
        layer_scale: initial value of a learned factor per channel of each branch's output, as DINOv2 has; None: no factor.
        in_channels: channels of the images.
        image_size: side whose grid the position embedding has; for other sizes it is resized bicubically.
        antialias: resize it as timm (True) or as DeiT's repository (False).
        resize_offset: added to the sides of the new grid where the scale is computed, with antialias False; DINOv2's program has 0.1.
        drop_path_rate: rate of the last block; the rates rise linearly from 0 over the blocks.
        remat: activations that the backward pass recomputes, see `layers.stages.REMAT`; True is "blocks", False "none".
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    num_classes: int = 1000
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_scale: float | None = None
    conv_stem: Sequence[int] = ()
    in_channels: int = 3
    image_size: int = 224
    antialias: bool = True
    resize_offset: float = 0.0
    drop_path_rate: float = 0.0
    remat: bool | str = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    PARAMETERS = ParameterGroups(stem=r"patch_embed|pos_embed|cls_token", head=r"norm|head", positions=("pos_embed", "cls_token"),
                                 images=r"patch_embed/(stem_0/)?kernel", blocks=((r"blocks_(\d+)/", lambda block: (block,)),))

    @nn.compact
    def __call__(self, images, train=False):
        self._check(images)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        patch, width = self.patch_size, self.embed_dim
        if self.conv_stem:
            x = ConvStem(self.conv_stem, patch, width, EPS, name="patch_embed", **options)(images)
        else:
            x = conv(width, patch, patch, bias_init=uniform((patch**2 * self.in_channels)**-0.5), name="patch_embed", **options)(images)
        rows, columns = x.shape[1:3]
        x = x.reshape(len(x), -1, width)
        probes.record(self, "patch_embed_out", x)
        cls = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, width), self.param_dtype).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(cls, (len(x), 1, width)), x], axis=1) + self._positions(rows, columns).astype(x.dtype)

        block = rematerialized(Block, self.remat)
        for i, rate in enumerate(self.drop_path_rates):
            x = block(self.num_heads, self.mlp_ratio, self.qkv_bias, rate, self.layer_scale, name=f"blocks_{i}", **options)(x, train)
            probes.record(self, f"block{i}_out", x)
        probes.last_map(self, lambda: x[:, 1:].reshape(len(x), rows, columns, width))
        x = LayerNorm(EPS, name="norm", **options)(x)
        probes.record(self, "final_norm", x)
        return dense(self.num_classes, name="head", **options)(x[:, 0]) if self.num_classes else x[:, 0]

    smallest_side = property(lambda self: self.patch_size, doc="Side of the smallest square images, in pixels.")

    @property
    def drop_path_rates(self):
        """Drop-path rate of every block, in the network's order."""
        return linear_rates(self.drop_path_rate, self.depth)

    def _positions(self, rows, columns):
        """Position embedding (1, 1 + rows * columns, width), with the class token's first."""
        grid, width = self.image_size // self.patch_size, self.embed_dim
        embedding = self.param("pos_embed", nn.initializers.truncated_normal(0.02), (1, 1 + grid**2, width), self.param_dtype)
        return resize_positions(embedding, rows, columns, self.antialias, self.resize_offset)

    def _check(self, images):
        checks.images(images, self.in_channels)
        checks.number("drop_path_rate", self.drop_path_rate, low=0, below=1)
        if any(side % self.patch_size or side < self.patch_size for side in images.shape[1:3]):
            raise ValueError(f"images.shape={images.shape}: expected sides that are multiples of patch_size={self.patch_size}")
        if self.resize_offset and self.antialias:
            raise ValueError(f"resize_offset={self.resize_offset}: expected 0 with antialias=True")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size={self.image_size}: expected a multiple of patch_size={self.patch_size}")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads}: expected a divisor of embed_dim={self.embed_dim}")


def resize_positions(embedding, rows, columns, antialias, offset=0.0):
    """A position embedding (1, 1 + side * side, C), class token first, resized to a grid of rows x columns; options as for `ViT`."""
    side = round((embedding.shape[1] - 1)**0.5)
    grid = resize_grid(embedding[:, 1:].reshape(1, side, side, -1), rows, columns, antialias, offset)
    return jnp.concatenate([embedding[:, :1], grid.reshape(1, rows * columns, -1)], axis=1)


class Block(nn.Module):
    """x + DropPath(Attention(norm1(x))), then x + DropPath(MLP(norm2(x))); with `layer_scale`, each branch's output times a factor per channel."""
    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path: float = 0.0
    layer_scale: float | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        scaled = lambda y, name: y if self.layer_scale is None else LayerScale(self.layer_scale, name=name, **options)(y)
        mixed = Attention(self.num_heads, self.qkv_bias, name="attn", **options)(LayerNorm(EPS, name="norm1", **options)(x))
        x = x + DropPath(self.drop_path)(scaled(mixed, "ls1"), train)
        mlp = MLP(int(x.shape[-1] * self.mlp_ratio), name="mlp", **options)
        return x + DropPath(self.drop_path)(scaled(mlp(LayerNorm(EPS, name="norm2", **options)(x)), "ls2"), train)
