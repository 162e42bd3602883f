"""JPEG as libjpeg codes it by default: 4:2:0 chroma, standard tables, triangle ("fancy") upsampling, the integer arithmetic of its "slow" cosine transform.

The entropy coding loses nothing and is left out. What is left agrees with libjpeg(-turbo) to the level.
"""
import numpy as np
from jax import lax
from jax import numpy as jnp

from vmamba_jax.evaluation.corruptions.reproducible import fence

# Quantisation at quality 50, Annex K of ITU-T T.81
LUMA = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92], [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99]])
CHROMA = np.full((8, 8), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# The transform of Loeffler, Ligtenberg & Moschytz (1989) with libjpeg's constants, in units of 2 ** -13: frequencies by pixels.
EVEN = np.array([[8192, 8192, 8192, 8192], [10703, 4433, -4433, -10703], [8192, -8192, -8192, 8192], [4433, -10704, 10704, -4433]])
ODD = np.array([[11363, 9633, 6437, 2260], [9633, -2259, -11362, -6436], [6437, -11362, 2261, 9633], [2260, -6436, 9633, -11363]])
TO_YCC = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], np.int32)  # units of 2 ** -16
ROUND_YCC = np.array([1 << 15, (128 << 16) + (1 << 15) - 1, (128 << 16) + (1 << 15) - 1], np.int32)
TO_RGB = np.array([[0, 91881], [-22554, -46802], [116130, 0]], np.int32)
COSINES = np.empty((8, 8), np.int32)
COSINES[::2] = np.concatenate([EVEN, EVEN[:, ::-1]], 1)
COSINES[1::2] = np.concatenate([ODD, -ODD[:, ::-1]], 1)


def jpeg_compression(image, draws, quality):
    """Code at `quality` (1 to 100) and decode."""
    del draws
    height, width = image.shape[:2]
    x = jnp.pad(jnp.round(image * 255).astype(jnp.int32), ((0, -height % 16), (0, -width % 16), (0, 0)), mode="edge")
    planes = fence(*(x[..., i] for i in range(3)))
    y, cb, cr = (_mixed(planes, weights, offset) for weights, offset in zip(TO_YCC, ROUND_YCC, strict=True))
    y = _coded(y, _table(LUMA, quality))[:height, :width]
    cb, cr = (_enlarged(_coded(_halved(c), _table(CHROMA, quality))[:-(-height // 2), :-(-width // 2)])[:height, :width] - 128 for c in (cb, cr))
    y, cb, cr = (plane[..., None] for plane in fence(y, cb, cr))
    return jnp.clip(y + _mixed((cb, cr), TO_RGB.T, 1 << 15), 0, 255) / 255


def _mixed(planes, weights, offset):
    """A sum of channels by weights in units of 2 ** -16."""
    return sum(weight * plane for plane, weight in zip(planes, weights, strict=True)) + offset >> 16


def _table(base, quality):
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((base * scale + 50) // 100, 1, 255).astype(np.int32)


def _coded(plane, table):
    """A plane (8 m, 8 n) of levels through transform, quantisation and back; blocks lie along the last axis."""
    height, width = plane.shape
    x = plane.reshape(height // 8, 8, width // 8, 8).transpose(1, 3, 0, 2).reshape(8, 8, -1) - 128
    waves = fence(_pass(_pass(x, COSINES, 11, 1), COSINES, 15, 0))  # eight times the coefficients
    table = table[..., None].astype(np.float32)
    steps = jnp.sign(waves) * (jnp.floor((jnp.abs(waves) + 4 * table) / (8 * table)) * table).astype(jnp.int32)  # exact: all below 2 ** 24
    x = jnp.clip(_pass(_pass(steps, COSINES.T, 11, 0), COSINES.T, 18, 1) + 128, 0, 255)
    return fence(x).reshape(8, 8, height // 8, width // 8).transpose(2, 0, 3, 1).reshape(height, width)


def _pass(x, matrix, bits, axis):
    """matrix @ x along an axis of eight, in integers, divided by 2 ** bits and rounded."""
    parts = jnp.split(fence(x), 8, axis)
    sums = [sum(weight * part for part, weight in zip(parts, weights, strict=True)) for weights in matrix]
    return jnp.concatenate([total + (1 << bits - 1) >> bits for total in sums], axis)


def _halved(plane):
    """Means of 2 x 2 values, halves rounded down and up in turn along a row; padded to whole blocks."""
    height, width = plane.shape
    plane = fence(plane)
    total = sum(plane[i::2, j::2] for i in range(2) for j in range(2))
    half = (total + 1 + np.arange(width // 2) % 2) >> 2
    return jnp.pad(half, ((0, -height // 2 % 8), (0, -width // 2 % 8)), mode="edge")


def _enlarged(plane):
    """Twice the size: each value 3/4 of the nearer and 1/4 of the farther one, both ways, with libjpeg's rounding."""
    def shifted(x, axis):
        padded = jnp.pad(x, [(int(axis == i),) * 2 for i in range(2)], mode="edge")
        n = x.shape[axis]
        return lax.slice_in_dim(padded, 0, n, axis=axis), lax.slice_in_dim(padded, 2, n + 2, axis=axis)
    above, below = shifted(plane, 0)
    rows = jnp.stack([3 * plane + above, 3 * plane + below], 1).reshape(2 * len(plane), -1)
    left, right = shifted(rows, 1)
    return (jnp.stack([3 * rows + left + 8, 3 * rows + right + 7], -1) >> 4).reshape(len(rows), -1)
