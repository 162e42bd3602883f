"""Vim (Vision Mamba): a plain stack of bidirectional selective scans on patches.

Source: Zhu et al., arXiv 2401.09417.
"""
import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks, scan_orders
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import DropPath, RMSNorm, WidthField, dense, dense_init
from vmamba_jax.models.layers.convolution import Conv
from vmamba_jax.models.layers.patches import resize_grid
from vmamba_jax.models.layers.stages import ParameterGroups, linear_rates, rematerialized
from vmamba_jax.models.vim.mixer import SUFFIXES, MixerFields, VimMixer
from vmamba_jax.models.vim.pyramid import STRIDES, pyramid

EPS = 1e-5
CLASS_TOKENS = {"middle": ("cls_token",), "head": ("cls_token",), "double": ("cls_token_head", "cls_token_tail"), "none": ()}
POOLS = ("last", "mean", "max", "all")


class Block(MixerFields, WidthField, nn.Module):
    """Vim block, r + DropPath(mixer(norm(r))): (b, L, C) -> (b, L, C), in r's dtype. Its fields are those of `VimMixer`, the drop-path rate, and
    `with_output`, with which the mixer's output is returned too.

    The original adds a block's output at the start of the next block, or before the final norm, and applies drop path there: the same sum.
    """
    out_scale: float = 1.0
    drop_path: float = 0.0
    with_output: bool = False

    @nn.compact
    def __call__(self, r, train=False):
        self.check_width(r, ("batch", "length", "channels"))
        norm = RMSNorm(EPS, self.dtype, self.param_dtype, name="norm")
        y = VimMixer(out_scale=self.out_scale, name="mixer", **self.mixer_fields())(norm(r))
        r = r + DropPath(self.drop_path)(y, train).astype(r.dtype)
        return (r, y) if self.with_output else r


class Vim(MixerFields, nn.Module):
    """Vision Mamba: (b, H, W, in_channels) normalized images -> (b, num_classes) logits.

    Patches are read row by row, or in the order of `scan_pattern`; `class_positions` returns the class tokens' positions among them. The mixer's
    fields are those of `MixerFields`.

    Attributes:
        num_classes: width of the head; 0 returns the features that the head would read.
        embed_dim, depth: width and number of blocks.
        patch_size, stride: side of a patch and distance between patches, in pixels.
        in_channels: channels of the images.
        class_token: "middle", before patch M // 2 of M; "head", before all; "double", one before and one after all, whose features are averaged;
            "none".
        pool: what the head reads if class_token="none": the "last" token, the "mean" of the tokens; or "max", the maximum over the tokens of their
            logits; or "all" tokens' logits, (b, M, num_classes).
        scan_pattern: "rows"; or another order in which the patches, each with its own position embedding, are read (see `core.scan_orders.order`).
            Class tokens keep their positions in the sequence.
        pos_embed, image_size: add a learned embedding of the grid that image_size has; for other sizes it is resized bicubically, except its class
            rows.
        residual_in_fp32: carry the sum of the blocks' outputs in at least float32, whatever the dtype.
        drop_path_rate: rate of the last block; the rates rise linearly from 0 over the blocks.
        remat: activations that the backward pass recomputes, see `layers.stages.REMAT`; True is "blocks", False "none".
        out_indices: numbers of four blocks; their mixers' outputs are returned as maps of the strides 4, 8, 16 and 32, see `pyramid`, in place of
            logits. (): logits. Needs class_token="none" and a stride of 16 or 8.
        stop_blocks: where stop_gradients applies: None: everywhere; or a tuple of block numbers.
        perturbed_blocks: where perturbed applies, in the same form.
    """
    num_classes: int = 1000
    embed_dim: int = 192
    depth: int = 24
    patch_size: int = 16
    stride: int = 16
    in_channels: int = 3
    class_token: str = "middle"
    pool: str = "mean"
    scan_pattern: str | tuple | Callable = "rows"
    pos_embed: bool = True
    image_size: int = 224
    residual_in_fp32: bool = True
    drop_path_rate: float = 0.1
    remat: bool | str = False
    out_indices: tuple = ()
    stop_blocks: tuple | None = None
    perturbed_blocks: tuple | None = None

    PARAMETERS = ParameterGroups(
        stem=r"patch_embed|pos_embed|cls_token(_head|_tail)?", head=r"norm_f|head|fpn\d_\d", blocks=((r"layers_(\d+)/", lambda block: (block,)),),
        positions=("pos_embed", "cls_token", "cls_token_head", "cls_token_tail"),
        ssm=tuple(name for suffix in SUFFIXES for name in (f"A{suffix}_log", f"D{suffix}")))

    @nn.compact
    def __call__(self, images, train=False):
        self._check(images)
        patch, width = (self.patch_size,) * 2, self.embed_dim
        x = Conv(width, patch, (self.stride,) * 2, "VALID", dtype=self.dtype, param_dtype=self.param_dtype,
                 kernel_init=nn.initializers.lecun_normal(), name="patch_embed")(images)
        rows, columns = x.shape[1:3]
        x = x.reshape(len(x), rows * columns, width)
        probes.record(self, "patch_embed_out", x)
        tokens = [self.param(name, dense_init, (1, 1, width), self.param_dtype) for name in CLASS_TOKENS[self.class_token]]
        positions = class_positions(self.class_token, rows * columns)
        x = insert(x, [jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, width)) for token in tokens], positions)
        if self.pos_embed:
            x = x + self._positions(rows, columns).astype(x.dtype)
        if self.scan_pattern != "rows":
            patches = np.delete(np.arange(x.shape[1]), positions)
            x = x.at[:, patches].set(x[:, patches[scan_orders.order(self.scan_pattern, rows, columns)]])

        options = dict(dtype=x.dtype, param_dtype=self.param_dtype)
        stopped, perturbed = (probes.chosen_blocks(field, getattr(self, field), self.depths) for field in ("stop_blocks", "perturbed_blocks"))
        block = rematerialized(Block, self.remat)
        r, maps = x.astype(jnp.promote_types(x.dtype, jnp.float32)) if self.residual_in_fp32 else x, []
        for i, rate in enumerate(self.drop_path_rates):
            fields = {**self.mixer_fields(), **options, "stop_gradients": self.stop_gradients if stopped[i] else (),
                      "perturbed": self.perturbed if perturbed[i] else ()}
            r = block(out_scale=self.depth**-0.5, drop_path=rate, name=f"layers_{i}", with_output=i in self.out_indices, **fields)(r, train)
            if i in self.out_indices:
                r, y = r
                maps.append(y[:, raster_order(self, rows, columns)].reshape(len(y), rows, columns, width))
            probes.record(self, f"block{i}_out", r)
        if self.out_indices:
            return pyramid(maps, self.stride, train, **options)
        patches = np.delete(raster_order(self, rows, columns), np.asarray(positions, int))
        probes.last_map(self, lambda: r[:, patches].reshape(len(r), rows, columns, width))
        x = RMSNorm(EPS, name="norm_f", **options)(r)
        probes.record(self, "final_norm", x)

        x = self._pooled(x, positions)
        x = dense(self.num_classes, name="head", **options)(x) if self.num_classes else x
        return x.max(1) if self._pool() == "max" else x

    @property
    def depths(self):
        """Blocks of each stage; every block is a stage of its own."""
        return (1,) * self.depth

    @property
    def drop_path_rates(self):
        """Drop-path rate of every block's output, in the network's order; a single block has `drop_path_rate`.

        The original counts at the receiver: block i drops its input at [0, *linspace][i], and the final norm at `drop_path_rate`.
        """
        return (*linear_rates(self.drop_path_rate, self.depth)[:-1], self.drop_path_rate)

    def _positions(self, rows, columns):
        """Position embedding (1, rows * columns + class tokens, width)."""
        grid, extra = (self.image_size - self.patch_size) // self.stride + 1, len(CLASS_TOKENS[self.class_token])
        embedding = self.param("pos_embed", dense_init, (1, grid**2 + extra, self.embed_dim), self.param_dtype)
        return resize_positions(embedding, self.class_token, rows, columns)

    def _pool(self):
        return self.pool if self.class_token == "none" else "class"

    def _pooled(self, x, positions):
        """Features for the head: (b, width), or (b, M, width) for pools "max" and "all"."""
        match self._pool():
            case "class":
                return sum(x[:, p] for p in positions) / len(positions)
            case "last":
                return x[:, -1]
            case "mean":
                return x.mean(1)
        return x

    def _check(self, images):
        checks.images(images, self.in_channels)
        checks.choice("class_token", self.class_token, CLASS_TOKENS)
        checks.choice("pool", self.pool, POOLS)
        checks.number("drop_path_rate", self.drop_path_rate, low=0, below=1)
        probes.check_names("stop_gradients", self.stop_gradients, probes.STOPPABLE)
        for field in ("embed_dim", "depth", "patch_size", "stride", "d_state"):
            checks.count(field, getattr(self, field))
        if self.out_indices:
            checks.stages(self.out_indices, self.depth)
            checks.require(len(self.out_indices) == 4, f"out_indices={self.out_indices}: expected four blocks")
            checks.require(self.class_token == "none", f"class_token={self.class_token!r} with out_indices: expected 'none'")
            checks.require(self.stride in STRIDES, f"stride={self.stride} with out_indices: expected 16 or 8")
        if min(images.shape[1:3]) < self.patch_size:
            raise ValueError(f"images.shape={images.shape}: expected sides of at least patch_size={self.patch_size}")
        if self.pos_embed and self.image_size < self.patch_size:
            raise ValueError(f"image_size={self.image_size}: expected at least patch_size={self.patch_size}")


def class_positions(class_token, patches):
    """Ascending positions of the class tokens in the sequence of `patches` patches and themselves."""
    return {"middle": (patches // 2,), "head": (0,), "double": (0, patches + 1), "none": ()}[class_token]


def raster_order(model, rows, columns):
    """Positions in a Vim's sequence in raster order, (L,) int: `x[:, raster_order]` has the patches row by row, class tokens at their positions."""
    positions = class_positions(model.class_token, rows * columns)
    found = np.arange(rows * columns + len(positions))
    patches = np.delete(found, np.asarray(positions, int))
    found[patches] = patches[np.argsort(scan_orders.order(model.scan_pattern, rows, columns))]
    return found


def insert(x, tokens, positions):
    """x (b, M, C) with each of the tokens (b, 1, C) inserted; `positions` ascend and count in the result."""
    for token, p in zip(tokens, positions, strict=True):
        x = jnp.concatenate([x[:, :p], token, x[:, p:]], axis=1)
    return x


def resize_positions(embedding, class_token, rows, columns):
    """A square grid's position embedding with its class rows, (1, side * side + n, C), resized to a grid of rows x columns.

    The class rows are removed and inserted at the tokens' positions (the original removes row 0 for every position of the token).
    """
    patches = embedding.shape[1] - len(CLASS_TOKENS[class_token])
    side, taken = math.isqrt(patches), class_positions(class_token, patches)
    grid = embedding[:, np.delete(np.arange(embedding.shape[1]), taken)].reshape(1, side, side, -1)
    grid = resize_grid(grid, rows, columns).reshape(1, rows * columns, -1)
    return insert(grid, [embedding[:, p:p + 1] for p in taken], class_positions(class_token, rows * columns))
