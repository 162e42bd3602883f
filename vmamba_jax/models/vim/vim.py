"""Vim (Vision Mamba): a plain stack of bidirectional selective scans on patches (Zhu et al., arXiv 2401.09417)."""
import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks, scan_orders
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import DropPath, dense, dense_init
from vmamba_jax.models.layers.convolution import Conv
from vmamba_jax.models.layers.patches import resize_grid
from vmamba_jax.models.vim.mixer import VimMixer

EPS = 1e-5
CLASS_TOKENS = {"middle": ("cls_token",), "head": ("cls_token",), "double": ("cls_token_head", "cls_token_tail"), "none": ()}
POOLS = ("last", "mean", "max", "all")


class Vim(nn.Module):
    """Vision Mamba: (b, H, W, in_channels) normalised images -> (b, num_classes) logits.

    Patches are read row by row, or by `scan_pattern`; `class_positions` tells where among them the class tokens stand.

    Attributes:
        num_classes: width of the head; 0 returns the features it would read.
        embed_dim, depth: width and number of blocks.
        patch_size, stride: side of a patch and distance between patches, in pixels.
        d_state: states per channel of the scans.
        class_token: "middle", before patch M // 2 of M; "head", before all; "double", one before and one after all, whose features are averaged;
            "none".
        pool: without a class token, what is read: the "last" token, the "mean" of the tokens, the "max" over the tokens of their logits, or
            "all" tokens' logits, (b, M, num_classes).
        scan_pattern: "rows"; or another order in which the patches, each with its own position embedding, are read (see `core.scan_orders.order`).
            Class tokens stay where they are in the sequence.
        pos_embed, image_size: add a learned embedding of the grid that image_size has; other sizes resize it bicubically, class rows excepted.
        divide_out, layer_scale: see `VimMixer`.
        residual_in_fp32: carry the sum of the blocks' outputs in at least float32, whatever the dtype.
        drop_path_rate: rises linearly from 0 to this over the blocks' outputs.
        remat: recompute each block's activations in the backward pass.
        stop_gradients, perturbed: named hidden states, see `states`.
        stop_blocks: where stop_gradients acts: None everywhere, or a tuple of block numbers.
        scan_implementation: backend of the scan.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters'.
    """
    num_classes: int = 1000
    embed_dim: int = 192
    depth: int = 24
    patch_size: int = 16
    stride: int = 16
    in_channels: int = 3
    d_state: int = 16
    class_token: str = "middle"
    pool: str = "mean"
    scan_pattern: str | tuple | Callable = "rows"
    pos_embed: bool = True
    image_size: int = 224
    divide_out: bool = True
    layer_scale: float | None = None
    residual_in_fp32: bool = True
    drop_path_rate: float = 0.1
    remat: bool = False
    stop_gradients: tuple = ()
    stop_blocks: tuple | None = None
    perturbed: tuple = ()
    scan_implementation: str | None = None
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

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
        mixer = dict(d_state=self.d_state, divide_out=self.divide_out, out_scale=self.depth**-0.5, layer_scale=self.layer_scale,
                     perturbed=self.perturbed, scan_implementation=self.scan_implementation, **options)
        stopped = [self.stop_gradients if chosen else () for chosen in probes.chosen_blocks("stop_blocks", self.stop_blocks, self.depths)]
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        r = x.astype(jnp.promote_types(x.dtype, jnp.float32)) if self.residual_in_fp32 else x
        for i, rate in enumerate(drop_path_rates(self.drop_path_rate, self.depth)):
            r = block({**mixer, "stop_gradients": stopped[i]}, rate, name=f"layers_{i}")(r, train)
            probes.record(self, f"block{i}_out", r)
        x = RMSNorm(name="norm_f", **options)(r)
        probes.record(self, "final_norm", x)

        x = self._pooled(x, positions)
        x = dense(self.num_classes, name="head", **options)(x) if self.num_classes else x
        return x.max(1) if self._pool() == "max" else x

    @property
    def depths(self):
        """Blocks of each stage, where every block counts as a stage of its own."""
        return (1,) * self.depth

    def _positions(self, rows, columns):
        """The position embedding (1, rows * columns and class rows, width)."""
        grid, extra = (self.image_size - self.patch_size) // self.stride + 1, len(CLASS_TOKENS[self.class_token])
        embedding = self.param("pos_embed", dense_init, (1, grid**2 + extra, self.embed_dim), self.param_dtype)
        return resize_positions(embedding, self.class_token, rows, columns)

    def _pool(self):
        return self.pool if self.class_token == "none" else "class"

    def _pooled(self, x, positions):
        """What the head reads: (b, width), or (b, M, width) for pools "max" and "all"."""
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
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)}; expected at least 1")
        if min(images.shape[1:3]) < self.patch_size:
            raise ValueError(f"images have shape {images.shape}; expected sides of at least patch_size={self.patch_size}")
        if self.pos_embed and self.image_size < self.patch_size:
            raise ValueError(f"image_size={self.image_size}; expected at least patch_size={self.patch_size}")


class Block(nn.Module):
    """r + DropPath(mixer(norm(r))), in r's dtype.

    The original adds a block's output at the beginning of the next block, or before the final norm, and drops it there: the same sum.
    """
    mixer: dict
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, r, train=False):
        norm = RMSNorm(self.mixer.get("dtype"), self.mixer.get("param_dtype", jnp.float32), name="norm")
        return r + DropPath(self.drop_path)(VimMixer(name="mixer", **self.mixer)(norm(r)), train).astype(r.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-5) times a learned scale, over the last axis, in at least float32; the mean is not taken off."""
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = wide / jnp.sqrt((wide * wide).mean(-1, keepdims=True) + EPS) * scale
        return y.astype(self.dtype or x.dtype)


def drop_path_rates(rate, depth):
    """The rate each block's output is dropped with: linspace(0, rate, depth) with `rate` itself last.

    The original counts from the receiving end: block i drops what it receives at [0, *linspace][i], and the final norm at `rate`.
    """
    return [*np.linspace(0, rate, depth)[:-1].tolist(), rate]


def class_positions(class_token, patches):
    """Where the class tokens stand in the sequence of so many patches and themselves, in ascending order."""
    return {"middle": (patches // 2,), "head": (0,), "double": (0, patches + 1), "none": ()}[class_token]


def insert(x, tokens, positions):
    """x (b, M, C) with each of the tokens (b, 1, C) at its position of the result; positions ascend."""
    for token, p in zip(tokens, positions, strict=True):
        x = jnp.concatenate([x[:, :p], token, x[:, p:]], axis=1)
    return x


def resize_positions(embedding, class_token, rows, columns):
    """A square grid's position embedding with its class rows, (1, side * side + n, C), for a grid of rows x columns.

    The class rows are taken from, and put back to, where the tokens stand (the original's resizing takes row 0, wherever the token is).
    """
    patches = embedding.shape[1] - len(CLASS_TOKENS[class_token])
    side, taken = math.isqrt(patches), class_positions(class_token, patches)
    grid = embedding[:, np.delete(np.arange(embedding.shape[1]), taken)].reshape(1, side, side, -1)
    grid = resize_grid(grid, rows, columns).reshape(1, rows * columns, -1)
    return insert(grid, [embedding[:, p:p + 1] for p in taken], class_positions(class_token, rows * columns))
