"""Spatter: drops of water, or of mud."""
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions import edges, threefry
from vmamba_jax.evaluation.corruptions.filters import gaussian
from vmamba_jax.evaluation.corruptions.levels import SLACK
from vmamba_jax.evaluation.corruptions.reproducible import fence

WATER, MUD = np.array([175, 238, 238], np.float32) / 255, np.array([63, 42, 20], np.float32) / 255
FAR, EMBOSS = 20, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)


def spatter(image, normals, mean, deviation, sigma, threshold, intensity, mud):
    """normals: (H, W) standard normals."""
    liquid = gaussian(mean + deviation * normals, sigma)
    if mud:
        cover = gaussian((liquid > threshold).astype(jnp.float32), intensity)[..., None]
        cover = jnp.where(cover < 0.8, 0, cover)
        return image * (1 - cover) + MUD * cover
    liquid = jnp.floor(jnp.where(liquid < threshold, 0, liquid) * 255 + SLACK) % 256
    liquid = fence(liquid)
    weight = fence(liquid * _rims(liquid))
    most = weight.max()
    return image + (weight / jnp.where(most > 0, most, 1) * intensity)[..., None] * WATER


def draw_layer(key, image, *parameters):
    """Standard normals (H, W)."""
    del parameters
    return threefry.normals(key, image.shape[:2])


def _rims(liquid):
    """How bright drops are by the distance from their edges: equalised, embossed, smoothed; whole levels."""
    far = _mean3(edges.distance(edges.canny(liquid, 50, 150), FAR))
    embossed = jnp.clip(_correlate3(_equalised(fence(jnp.floor(far + SLACK))), EMBOSS), 0, 255)
    return jnp.round(_mean3(embossed))


def _equalised(levels):
    """`cv2.equalizeHist` of whole levels 0 .. FAR."""
    places = levels.astype(jnp.int32)
    counts = jnp.zeros(FAR + 1, jnp.int32).at[places].add(1, mode="promise_in_bounds")
    first = counts[jnp.argmax(counts > 0)]
    rest = levels.size - first
    table = jnp.round((jnp.cumsum(counts) - first) * (255 / jnp.maximum(rest, 1)))
    return jnp.where(rest > 0, table.at[places].get(mode="promise_in_bounds"), levels)


def _mean3(x):
    return _correlate3(x, np.full((3, 3), 1 / 9, np.float32))


def _correlate3(x, kernel):
    padded = fence(jnp.pad(fence(x), 1, mode="reflect"))
    return sum(weight * lax.slice(padded, at, np.add(at, x.shape)) for at, weight in np.ndenumerate(kernel) if weight)
