"""Snow: flakes from thresholded noise, blown along an angle, over a whitened image."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.evaluation.corruptions import threefry
from vmamba_jax.evaluation.corruptions.filters import zoomed
from vmamba_jax.evaluation.corruptions.levels import truncated
from vmamba_jax.evaluation.corruptions.motion import motion_filter
from vmamba_jax.evaluation.corruptions.reproducible import fence

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def snow(image, draws, mean, deviation, zoom, threshold, radius, sigma, share):
    """draws: {"normals": (H, W) standard normals, "angle": degrees}."""
    layer = zoomed(fence(mean + deviation * draws["normals"]), zoom)
    layer = fence(truncated(jnp.where(layer < threshold, 0, layer)))
    flakes = fence(motion_filter(layer, draws["angle"], radius, sigma))
    flakes = fence(flakes + flakes[::-1, ::-1])[..., None]
    luma = fence(sum(weight * image[..., i] for i, weight in enumerate(LUMA)))
    white = jnp.maximum(image, luma[..., None] * 1.5 + 0.5)
    return share * image + (1 - share) * white + flakes


def draw_snow(key, image, *parameters):
    """Normals for the flakes and an angle in [-135, -45) degrees."""
    del parameters
    a, b = jax.random.split(key)
    return {"normals": threefry.normals(a, image.shape[:2]), "angle": jax.random.uniform(b, (), minval=-135.0, maxval=-45.0)}
