"""Windows of a map: cutting, putting together, shifting, and who may attend to whom (Liu et al., arXiv 2103.14030)."""
import functools

import jax.numpy as jnp
import numpy as np

PADDINGS = ("after_roll", "before_roll")
MASKED = -100.0  # what the original adds to the scores of foreign pairs; not -inf


def stage_windows(side, window_size, stages, always_partition=False):
    """[(window, shift)] of each stage for a square grid that halves from stage to stage, odd sides rounded up.

    A window that is no smaller than the map shrinks to it and has shift 0, unless `always_partition`; else the shift is window // 2.
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
    """Which part of the unshifted map every token of every window comes from: (windows, n) small integers, a different one for each part.

    Args:
        height, width: the shifted map's, multiples of window.
    """
    part = lambda n: (np.arange(n) >= n - window).astype(np.int8) + (np.arange(n) >= n - shift)
    return np.asarray(partition((3 * part(height)[:, None] + part(width))[None, :, :, None], window)[..., 0])


def shift_mask(height, width, window, shift):
    """What is added to the scores of a shifted map: 0 within one region, MASKED between two, (windows, n, n)."""
    parts = regions(height, width, window, shift)
    return jnp.where(parts[:, :, None] == parts[:, None, :], 0, MASKED)


def partition(x, window):
    """(b, H, W, C) -> (b * windows, window^2, C), windows row by row; window divides H and W. NumPy arrays stay such."""
    b, height, width, channels = x.shape
    x = x.reshape(b, height // window, window, width // window, window, channels)
    return x.swapaxes(2, 3).reshape(-1, window**2, channels)


def merge(windows, window, height, width):
    """`partition` undone: (b * windows, window^2, C) -> (b, height, width, C)."""
    x = windows.reshape(-1, height // window, width // window, window, window, windows.shape[-1])
    return x.swapaxes(2, 3).reshape(-1, height, width, windows.shape[-1])


def enter(x, window, shift, padding):
    """A map rolled by -shift and zero-padded at its bottom and right to multiples of window, in the order that `padding` names."""
    pad = lambda x: jnp.pad(x, ((0, 0), (0, -x.shape[1] % window), (0, -x.shape[2] % window), (0, 0)))
    return roll(pad(x), -shift) if padding == "before_roll" else pad(roll(x, -shift))


def leave(x, height, width, shift, padding):
    """`enter` undone, to a map of height x width."""
    crop = lambda x: x[:, :height, :width]
    return crop(roll(x, shift)) if padding == "before_roll" else roll(crop(x), shift)


def roll(x, shift):
    """A map moved down and right by shift, around its edges."""
    return jnp.roll(x, (shift, shift), (1, 2)) if shift else x
