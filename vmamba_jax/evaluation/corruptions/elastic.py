"""The released elastic transform: a random affine map, then a smooth random displacement of every pixel."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.evaluation.corruptions.filters import fold, gaussian_matrix, separable


def elastic_transform(image, draws, strength, sigma, move):
    """draws: {"corners": (3, 2), "dx", "dy": (H, W)}, all uniform in [-1, 1)."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = _sampled(image, *_affine(y, x, move * draws["corners"]), "mirror")
    blur = [gaussian_matrix(n, sigma, truncate=3.0, mode="reflect") for n in image.shape[:2]]
    dx, dy = (separable(draws[name], *blur) * strength for name in ("dx", "dy"))
    return _sampled(image, y + dy, x + dx, "reflect")


def draw_elastic(key, image, *parameters):
    """Uniform numbers for three corners and both displacements."""
    del parameters
    shapes = {"corners": (3, 2), "dx": image.shape[:2], "dy": image.shape[:2]}
    keys = jax.random.split(key, len(shapes))
    return {name: jax.random.uniform(k, shape, minval=-1.0, maxval=1.0) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}


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
    part_y, part_x = (y - low_y)[..., None], (x - low_x)[..., None]
    low_y, low_x = low_y.astype(jnp.int32), low_x.astype(jnp.int32)
    rows, cols = ([fold(low, n, mode), fold(low + 1, n, mode)] for low, n in ((low_y, height), (low_x, width)))
    pixels = image.reshape(-1, channels)
    (a, b), (c, d) = ([pixels[row * width + col] for col in cols] for row in rows)
    upper, lower = a + (b - a) * part_x, c + (d - c) * part_x
    return upper + (lower - upper) * part_y
