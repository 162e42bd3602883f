"""Brightness, contrast and saturation; elastic transform, pixelation and JPEG compression.

JPEG as libjpeg encodes it by default: 4:2:0 chroma, standard tables, triangle ("fancy") upsampling, the integer arithmetic of its "slow"
cosine transform. Entropy coding is lossless and left out. The result equals libjpeg(-turbo)'s to the level.
"""
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions import threefry
from vmamba_jax.evaluation.corruptions.filters import box_taps, gaussian
from vmamba_jax.evaluation.corruptions.reproducible import barrier, rounded

# Quantization at quality 50, Annex K of ITU-T T.81
LUMA_TABLE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92], [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99]])
CHROMA_TABLE = np.full((8, 8), 99)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# The transform of Loeffler, Ligtenberg & Moschytz (1989) with libjpeg's constants, in units of 2 ** -13: frequencies by pixels.
EVEN = np.array([[8192, 8192, 8192, 8192], [10703, 4433, -4433, -10703], [8192, -8192, -8192, 8192], [4433, -10704, 10704, -4433]])
ODD = np.array([[11363, 9633, 6437, 2260], [9633, -2259, -11362, -6436], [6437, -11362, 2261, 9633], [2260, -6436, 9633, -11363]])
TO_YCC = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], np.int32)  # units of 2 ** -16
ROUND_YCC = np.array([1 << 15, (128 << 16) + (1 << 15) - 1, (128 << 16) + (1 << 15) - 1], np.int32)
TO_RGB = np.array([[0, 91881], [-22554, -46802], [116130, 0]], np.int32)
COSINES = np.empty((8, 8), np.int32)
COSINES[::2] = np.concatenate([EVEN, EVEN[:, ::-1]], 1)
COSINES[1::2] = np.concatenate([ODD, -ODD[:, ::-1]], 1)


def brightness(image, draws, amount):
    """The value of HSV raised by `amount`, at most to 1, with hue and saturation unchanged: one factor for the three channels."""
    del draws
    value = _across(jnp.maximum, image)
    raised = jnp.clip(value + amount, 0, 1)
    return jnp.where(value > 0, image * (raised / jnp.where(value > 0, value, 1)), raised)


def contrast(image, draws, factor):
    """Differences from each channel's mean multiplied by `factor`."""
    del draws
    rows = image.reshape(len(image), -1)
    mean = jnp.tile(rows.mean(0).reshape(-1, image.shape[-1]).mean(0), image.shape[1])
    return ((rows - mean) * factor + mean).reshape(image.shape)


def saturate(image, draws, factor, amount):
    """The saturation s of HSV becomes clip(factor * s + amount); gray counts as red of saturation 0, as in skimage."""
    del draws
    value, least = _across(jnp.maximum, image), _across(jnp.minimum, image)
    spread = value - least
    gray = spread == 0
    short = jnp.where(gray, jnp.array([0.0, 1.0, 1.0]), (value - image) / jnp.where(gray, 1, spread))  # of the value, per channel
    saturation = jnp.clip(spread / jnp.where(value > 0, value, 1) * factor + amount, 0, 1)
    return value * (1 - saturation * short)


def _across(function, image):
    """Maximum or minimum over the three channels, (H, W, 1). A reduction over the last axis takes ten times as long on a CPU."""
    return function(function(image[..., 0], image[..., 1]), image[..., 2])[..., None]


def elastic_transform(image, draws, strength, sigma, move):
    """The released elastic transform: a random affine map, then a smooth random displacement of every pixel.

    draws: {"corners": (3, 2), "dx", "dy": (H, W)}, all uniform in [-1, 1).
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = _sampled(image, *_affine(y, x, move * draws["corners"]), "mirror")
    dx, dy = (gaussian(draws[name], sigma, truncate=3.0, mode="reflect") * strength for name in ("dx", "dy"))
    return _sampled(image, y + dy, x + dx, "reflect")


def draw_elastic(key, image, *parameters):
    """Uniform numbers for three corners and both displacements."""
    del parameters
    places, corners = jax.random.split(key)
    dx, dy = threefry.uniforms(places, (2, *image.shape[:2]))
    return {"corners": threefry.uniforms(corners, (3, 2)), "dx": dx, "dy": dy}


def _affine(y, x, moves):
    """Source position of each pixel when three points (x, y) around the center move by `moves` (3, 2)."""
    height, width = y.shape
    center, arm = np.array([height // 2, width // 2], np.float32), min(height, width) // 3
    points = np.stack([center + arm, center + [arm, -arm], center - arm]).astype(np.float32)
    sides, moved = points[1:] - points[0], points[1:] - points[0] + moves[1:] - moves[0]
    (a, b), (c, d) = moved
    back = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c) @ sides  # rows: from displacement in the output to displacement in the input
    from_x, from_y = x - points[0, 0] - moves[0, 0], y - points[0, 1] - moves[0, 1]
    return points[0, 1] + from_x * back[0, 1] + from_y * back[1, 1], points[0, 0] + from_x * back[0, 0] + from_y * back[1, 0]


def _sampled(image, y, x, mode):
    """image (H, W, C) at positions (H, W) by linear interpolation."""
    height, width, channels = image.shape
    low_y, low_x = jnp.floor(y), jnp.floor(x)
    rows, cols = ([_folded(low, n, mode), _folded(low + 1, n, mode)] for low, n in ((low_y, height), (low_x, width)))
    places = [(row * width + col).astype(jnp.int32) for row in rows for col in cols]
    *places, part_y, part_x, image = barrier(*places, y - low_y, x - low_x, image)
    pixels, part_y, part_x = image.reshape(-1, channels), part_y[..., None], part_x[..., None]
    a, b, c, d = (pixels.at[place].get(mode="promise_in_bounds") for place in places)
    upper, lower = a + (b - a) * part_x, c + (d - c) * part_x
    return upper + (lower - upper) * part_y


def _folded(index, n, mode):
    """`filters.fold` for whole float32 numbers."""
    period = 2 * n if mode == "reflect" else 2 * n - 2
    index = index - period * jnp.floor(index / period)
    return jnp.minimum(index, period - (mode == "reflect") - index)


def pixelate(image, draws, fraction):
    """Resized to sides int(fraction * side) and back by Pillow's BOX filter: columns, then rows, rounded to levels after each."""
    del draws
    height, width = image.shape[:2]
    x = _resize(image, int(height * fraction), int(width * fraction))
    return _resize(x, height, width)


def _resize(image, height, width):
    for axis, m in ((1, width), (0, height)):
        places, weights = box_taps(image.shape[axis], m)
        shape = [m if i == axis else 1 for i in range(3)]
        read = (weight.reshape(shape) * jnp.take(image, place, axis, mode="clip") for place, weight in zip(places, weights, strict=True))
        image = barrier(rounded(sum(read)))
    return image


def jpeg_compression(image, draws, quality):
    """Encoded as JPEG at `quality` (1 to 100) and decoded."""
    del draws
    height, width = image.shape[:2]
    x = jnp.pad(jnp.round(image * 255).astype(jnp.int32), ((0, -height % 16), (0, -width % 16), (0, 0)), mode="edge")
    planes = barrier(*(x[..., i] for i in range(3)))
    y, cb, cr = (_mixed(planes, weights, offset) for weights, offset in zip(TO_YCC, ROUND_YCC, strict=True))
    y = _coded(y, _table(LUMA_TABLE, quality))[:height, :width]
    table, half = _table(CHROMA_TABLE, quality), np.s_[:-(-height // 2), :-(-width // 2)]
    cb, cr = (_enlarged(_coded(_halved(c), table)[half])[:height, :width] - 128 for c in (cb, cr))
    y, cb, cr = (plane[..., None] for plane in barrier(y, cb, cr))
    return jnp.clip(y + _mixed((cb, cr), TO_RGB.T, 1 << 15), 0, 255) / 255


def _mixed(planes, weights, offset):
    """Weighted sum of channels; weights in units of 2 ** -16."""
    return sum(weight * plane for plane, weight in zip(planes, weights, strict=True)) + offset >> 16


def _table(base, quality):
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((base * scale + 50) // 100, 1, 255).astype(np.int32)


def _coded(plane, table):
    """A plane (8 m, 8 n) of levels after transform, quantization and their inverses; blocks are on the last axis."""
    height, width = plane.shape
    x = plane.reshape(height // 8, 8, width // 8, 8).transpose(1, 3, 0, 2).reshape(8, 8, -1) - 128
    waves = barrier(_pass(_pass(x, COSINES, 11, 1), COSINES, 15, 0))  # eight times the coefficients
    table = table[..., None].astype(np.float32)
    steps = jnp.sign(waves) * (jnp.floor((jnp.abs(waves) + 4 * table) / (8 * table)) * table).astype(jnp.int32)  # exact: all below 2 ** 24
    x = jnp.clip(_pass(_pass(steps, COSINES.T, 11, 0), COSINES.T, 18, 1) + 128, 0, 255)
    return barrier(x).reshape(8, 8, height // 8, width // 8).transpose(2, 0, 3, 1).reshape(height, width)


def _pass(x, matrix, bits, axis):
    """matrix @ x along an axis of eight, in integers, divided by 2 ** bits and rounded."""
    parts = jnp.split(barrier(x), 8, axis)
    sums = [sum(weight * part for part, weight in zip(parts, weights, strict=True)) for weights in matrix]
    return jnp.concatenate([total + (1 << bits - 1) >> bits for total in sums], axis)


def _halved(plane):
    """Means of 2 x 2 values, halves rounded down and up alternately along a row; padded to whole blocks."""
    height, width = plane.shape
    plane = barrier(plane)
    total = sum(plane[i::2, j::2] for i in range(2) for j in range(2))
    half = (total + 1 + np.arange(width // 2) % 2) >> 2
    return jnp.pad(half, ((0, -height // 2 % 8), (0, -width // 2 % 8)), mode="edge")


def _enlarged(plane):
    """Upsampled twofold: 3/4 of the nearer and 1/4 of the farther value, in both directions, with libjpeg's rounding."""
    def shifted(x, axis):
        padded = jnp.pad(x, [(int(axis == i),) * 2 for i in range(2)], mode="edge")
        n = x.shape[axis]
        return lax.slice_in_dim(padded, 0, n, axis=axis), lax.slice_in_dim(padded, 2, n + 2, axis=axis)
    above, below = shifted(plane, 0)
    rows = jnp.stack([3 * plane + above, 3 * plane + below], 1).reshape(2 * len(plane), -1)
    left, right = shifted(rows, 1)
    return (jnp.stack([3 * rows + left + 8, 3 * rows + right + 7], -1) >> 4).reshape(len(rows), -1)
