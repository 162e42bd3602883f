"""The released elastic transform: a random affine map, then a smooth random displacement of every pixel."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.evaluation.corruptions import threefry
from vmamba_jax.evaluation.corruptions.filters import gaussian
from vmamba_jax.evaluation.corruptions.reproducible import fence


def elastic_transform(image, draws, strength, sigma, move):
    """draws: {"corners": (3, 2), "dx", "dy": (H, W)}, all uniform in [-1, 1)."""
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
    """Where each pixel reads from when three points (x, y) about the centre are carried by `moves` (3, 2)."""
    height, width = y.shape
    centre, arm = np.array([height // 2, width // 2], np.float32), min(height, width) // 3
    points = np.stack([centre + arm, centre + [arm, -arm], centre - arm]).astype(np.float32)
    sides, moved = points[1:] - points[0], points[1:] - points[0] + moves[1:] - moves[0]
    (a, b), (c, d) = moved
    back = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c) @ sides  # rows: from displacement in the output to displacement in the input
    from_x, from_y = x - points[0, 0] - moves[0, 0], y - points[0, 1] - moves[0, 1]
    return points[0, 1] + from_x * back[0, 1] + from_y * back[1, 1], points[0, 0] + from_x * back[0, 0] + from_y * back[1, 0]


def _sampled(image, y, x, mode):
    """image (H, W, C) at places (H, W) by linear interpolation."""
    height, width, channels = image.shape
    low_y, low_x = jnp.floor(y), jnp.floor(x)
    rows, cols = ([_folded(low, n, mode), _folded(low + 1, n, mode)] for low, n in ((low_y, height), (low_x, width)))
    places = [(row * width + col).astype(jnp.int32) for row in rows for col in cols]
    *places, part_y, part_x, image = fence(*places, y - low_y, x - low_x, image)
    pixels, part_y, part_x = image.reshape(-1, channels), part_y[..., None], part_x[..., None]
    a, b, c, d = (pixels.at[place].get(mode="promise_in_bounds") for place in places)
    upper, lower = a + (b - a) * part_x, c + (d - c) * part_x
    return upper + (lower - upper) * part_y


def _folded(index, n, mode):
    """`fold` of whole float32 numbers."""
    period = 2 * n if mode == "reflect" else 2 * n - 2
    index = index - period * jnp.floor(index / period)
    return jnp.minimum(index, period - (mode == "reflect") - index)
