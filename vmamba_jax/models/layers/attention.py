"""Self-attention over all tokens (ViT) and within shifted windows of a map (Swin).

Source: Dosovitskiy et al., arXiv 2010.11929; Liu et al., arXiv 2103.14030, section 3.2.
"""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import dense, dense_init

PADDINGS = ("after_roll", "before_roll")
MASKED = -100.0  # the original adds this to the scores of pairs from different regions; not -inf


class Attention(nn.Module):
    """Multi-head self-attention (b, n, C) -> (b, n, C), with the softmax in at least float32.

    The probabilities (b, heads, n, n) are recorded as `attention`.

    Attributes:
        num_heads: heads; divides C. One packed projection returns q, k, v, each split into heads.
        qkv_bias: bias of that projection.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    num_heads: int
    qkv_bias: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, bias=None):
        """bias: added to the scores; broadcasts to (b, heads, n, n)."""
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        b, n, channels = x.shape
        qkv = dense(3 * channels, use_bias=self.qkv_bias, name="qkv", **options)(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, self.num_heads, -1), 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * np.array(q.shape[-1]**-0.5, q.dtype), k)
        scores = scores if bias is None else scores + bias.astype(scores.dtype)
        attention = jax.nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)))
        probes.record(self, "attention", attention)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", attention.astype(v.dtype), v)
        return dense(channels, name="proj", **options)(mixed.reshape(b, n, channels))


class WindowAttention(Attention):
    """Self-attention within the windows of a map, (b, H, W, C) -> (b, H, W, C), with a learned bias per offset between query and key.

    Attributes:
        window: side of a window in tokens.
        shift: tokens by which the map is rolled up and left before it is cut into windows.
        padding: one of PADDINGS, the order of rolling and of padding to multiples of the window.
    """
    window: int = 7
    shift: int = 0
    padding: str = "after_roll"

    @nn.compact
    def __call__(self, x):
        window, (height, width) = self.window, x.shape[1:3]
        x = to_windowed_map(x, window, self.shift, self.padding)
        padded = x.shape[1:3]
        table = self.param("relative_position_bias_table", dense_init, ((2 * window - 1)**2, self.num_heads), self.param_dtype)
        bias = jnp.moveaxis(table[relative_position_index(window)], -1, 0)                # (heads, n, n)
        if self.shift:
            bias = bias + shift_mask(*padded, window, self.shift)[:, None]                # (windows, heads, n, n)
            bias = jnp.tile(bias, (len(x), 1, 1, 1))                                      # once per image
        x = merge(super().__call__(partition(x, window), bias), window, *padded)
        return from_windowed_map(x, height, width, self.shift, self.padding)


# ---- windows

def stage_windows(side, window_size, stages, always_partition=False):
    """[(window, shift)] of each stage for a square grid that halves from stage to stage, odd sides rounded up.

    A window no smaller than the map shrinks to the map and has shift 0, unless `always_partition`; otherwise the shift is window // 2.
    """
    found = []
    for _ in range(stages):
        whole = side <= window_size and not always_partition
        found.append((side, 0) if whole else (window_size, window_size // 2))
        side = -(-side // 2)
    return found


@functools.cache
def relative_position_index(window):
    """Row of the ((2 window - 1)^2, heads) table for every (query, key) of a window: (n, n) int32, n = window^2, rows before columns."""
    rows, columns = np.divmod(np.arange(window**2), window)
    offset = lambda x: x[:, None] - x[None] + window - 1
    return (offset(rows) * (2 * window - 1) + offset(columns)).astype(np.int32)


@functools.lru_cache(maxsize=64)
def regions(height, width, window, shift):
    """Region of the unshifted map that every token of every window comes from: (windows, n) small integers, one per region.

    Args:
        height, width: sides of the shifted map, multiples of window.
        window, shift: see `WindowAttention`.
    """
    part = lambda n: (np.arange(n) >= n - window).astype(np.int8) + (np.arange(n) >= n - shift)
    return np.asarray(partition((3 * part(height)[:, None] + part(width))[None, :, :, None], window)[..., 0])


def shift_mask(height, width, window, shift):
    """Summand of a shifted map's scores: 0 within a region, MASKED between two regions, (windows, n, n)."""
    parts = regions(height, width, window, shift)
    return jnp.where(parts[:, :, None] == parts[:, None, :], 0, MASKED)


def partition(x, window):
    """(b, H, W, C) -> (b * windows, window^2, C), windows in rows; window divides H and W. A NumPy array returns a NumPy array."""
    b, height, width, channels = x.shape
    x = x.reshape(b, height // window, window, width // window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, window**2, channels)


def merge(windows, window, height, width):
    """Inverse of `partition`: (b * windows, window^2, C) -> (b, height, width, C)."""
    x = windows.reshape(-1, height // window, width // window, window, window, windows.shape[-1])
    return x.swapaxes(2, 3).reshape(-1, height, width, windows.shape[-1])


def to_windowed_map(x, window, shift, padding):
    """The map rolled by -shift and zero-padded at its bottom and right to multiples of window, in the order of `padding`."""
    pad = lambda x: jnp.pad(x, ((0, 0), (0, -x.shape[1] % window), (0, -x.shape[2] % window), (0, 0)))
    return _roll(pad(x), -shift) if padding == "before_roll" else pad(_roll(x, -shift))


def from_windowed_map(x, height, width, shift, padding):
    """Inverse of `to_windowed_map`: the map of height x width."""
    crop = lambda x: x[:, :height, :width]
    return crop(_roll(x, shift)) if padding == "before_roll" else _roll(crop(x), shift)


def _roll(x, shift):
    return jnp.roll(x, (shift, shift), (1, 2)) if shift else x
