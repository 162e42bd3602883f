"""Snow, frost, fog and spatter. Frost uses photos of the package `imagecorruptions`; none is part of this package."""
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

from vmamba_jax.evaluation.corruptions import canny, threefry
from vmamba_jax.evaluation.corruptions.blur import motion_blur
from vmamba_jax.evaluation.corruptions.filters import gaussian, zoomed
from vmamba_jax.evaluation.corruptions.reproducible import SLACK, barrier, truncated

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
FROST_PHOTOS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")  # the released program never draws the sixth
FROST_SCALES = {224: 1.0, 64: 0.3, 32: 0.2}
FROST_MISSING = ("name='frost': expected the photos of frost in the package imagecorruptions; pip install 'vmamba_jax[corruptions]' "
                 "(imagecorruptions-imaug)")
WATER, MUD = np.array([175, 238, 238], np.float32) / 255, np.array([63, 42, 20], np.float32) / 255
FAR, EMBOSS = 20, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)  # longest distance to an edge, in pixels; OpenCV filter


def snow(image, draws, mean, deviation, zoom, threshold, radius, sigma, image_weight):
    """Flakes from thresholded noise, blurred along an angle, over a whitened image.

    draws: {"normals": (H, W) standard normals, "angle": degrees}.
    """
    layer = zoomed(barrier(mean + deviation * draws["normals"]), zoom)
    layer = barrier(truncated(jnp.where(layer < threshold, 0, layer)))
    flakes = barrier(motion_blur(layer, draws["angle"], radius, sigma))
    flakes = barrier(flakes + flakes[::-1, ::-1])[..., None]
    luma = barrier(sum(weight * image[..., i] for i, weight in enumerate(LUMA)))
    white = jnp.maximum(image, luma[..., None] * 1.5 + 0.5)
    return image_weight * image + (1 - image_weight) * white + flakes


def draw_snow(key, image, *parameters):
    """Normals for the flakes and an angle in [-135, -45) degrees."""
    del parameters
    a, b = jax.random.split(key)
    return {"normals": threefry.normals(a, image.shape[:2]), "angle": jax.random.uniform(b, (), minval=-135.0, maxval=-45.0)}


def frost(image, patch, weight, frost_weight):
    """weight * image + frost_weight * patch; patch: (H, W, 3), part of a photo of frost, in [0, 1]."""
    return weight * image + frost_weight * patch


def draw_patch(key, image, weight, frost_weight, textures):
    """A patch of the image's size at a random position of a random texture.

    textures: {"pixels": (t, h, w, 3) uint8, "sizes": (t, 2)} from `load_textures`; a patch ends at least one pixel before the bottom and
        right borders.
    """
    del weight, frost_weight
    which, row, col = jax.random.split(key, 3)
    which = jax.random.randint(which, (), 0, len(textures["sizes"]))
    pixels, sizes = map(jnp.asarray, (textures["pixels"], textures["sizes"]))
    limit = sizes[which] - jnp.array(image.shape[:2])
    row, col = jax.random.randint(row, (), 0, limit[0]), jax.random.randint(col, (), 0, limit[1])
    patch = lax.dynamic_slice(pixels, (which, row, col, 0), (1, *image.shape))[0]
    return patch.astype(jnp.float32) / 255


@functools.lru_cache(maxsize=3)
def load_textures(table):
    """The five photos of frost in one array, see `draw_patch`, scaled as the released program of that table does. Raises ImportError."""
    spec = importlib.util.find_spec("imagecorruptions")
    if spec is None:
        raise ImportError(FROST_MISSING)
    folder = pathlib.Path(spec.origin).parent / "frost"
    textures = [_scaled(np.asarray(Image.open(folder / name).convert("RGB")), FROST_SCALES[table]) for name in FROST_PHOTOS]
    sizes = np.array([texture.shape[:2] for texture in textures], np.int32)
    pixels = np.zeros((len(textures), *sizes.max(0), 3), np.uint8)
    for whole, texture in zip(pixels, textures, strict=True):
        whole[:texture.shape[0], :texture.shape[1]] = texture
    return {"pixels": pixels, "sizes": sizes}


def _scaled(texture, scale):
    """OpenCV's linear resize: no smoothing, pixel centers aligned."""
    if scale == 1:
        return texture
    x = texture.astype(np.float64)
    for axis in (0, 1):
        n = x.shape[axis]
        at = np.clip((np.arange(round(n * scale)) + 0.5) / scale - 0.5, 0, n - 1)
        low = np.minimum(at.astype(int), n - 2)
        part = np.expand_dims(at - low, tuple(i for i in range(3) if i != axis))
        x = np.take(x, low, axis) * (1 - part) + np.take(x, low + 1, axis) * part
    return np.floor(x + 0.5).astype(np.uint8)


def fog(image, uniforms, strength, decay):
    """image + strength * fractal, rescaled to the image's highest value."""
    brightest = image.max()
    plasma = plasma_fractal(barrier(uniforms), decay)[:image.shape[0], :image.shape[1], None]
    return (image + strength * plasma) * (brightest / (brightest + strength))


def draw_uniforms(key, image, strength, decay):
    """(m * m - 1,) in [-1, 1), m the smallest power of two >= the sides of the image."""
    del strength, decay
    side = 1 << (max(image.shape[:2]) - 1).bit_length()
    return threefry.uniforms(key, (side * side - 1,))


def plasma_fractal(uniforms, decay, wibble=100.0):
    """Diamond-square height map (m, m) on a torus, scaled to [0, 1].

    uniforms: (m * m - 1,) in [-1, 1); each level uses one per cell for its squares and one per cell for each of its two kinds of diamonds.
    decay: divisor of the displacement `wibble` from level to level; the displacement is squared, as in the released program.
    """
    side = round((len(uniforms) + 1) ** 0.5)
    corners, used, n = jnp.zeros((1, 1)), 0, 1
    while n < side:
        squares, left, top = uniforms[used:used + 3 * n * n].reshape(3, n, n) * wibble**2
        pair = corners + jnp.roll(corners, -1, 0)
        centers = (pair + jnp.roll(pair, -1, 1)) / 4 + squares
        left = (centers + jnp.roll(centers, 1, 0) + corners + jnp.roll(corners, -1, 1)) / 4 + left
        top = (centers + jnp.roll(centers, 1, 1) + corners + jnp.roll(corners, -1, 0)) / 4 + top
        corners = jnp.stack([jnp.stack([corners, left], -1), jnp.stack([top, centers], -1)], 1).reshape(2 * n, 2 * n)
        used, n, wibble = used + 3 * n * n, 2 * n, wibble / decay
    corners = barrier(corners)
    heights = corners - corners.min()
    return heights / heights.max()


def spatter(image, normals, mean, deviation, sigma, threshold, intensity, mud):
    """Drops of water, or of mud where `mud` is 1; normals: (H, W) standard normals."""
    liquid = gaussian(mean + deviation * normals, sigma)
    if mud:
        cover = gaussian((liquid > threshold).astype(jnp.float32), intensity)[..., None]
        cover = jnp.where(cover < 0.8, 0, cover)
        return image * (1 - cover) + MUD * cover
    liquid = jnp.floor(jnp.where(liquid < threshold, 0, liquid) * 255 + SLACK) % 256
    liquid = barrier(liquid)
    weight = barrier(liquid * _rims(liquid))
    most = weight.max()
    return image + (weight / jnp.where(most > 0, most, 1) * intensity)[..., None] * WATER


def draw_layer(key, image, *parameters):
    """Standard normals (H, W)."""
    del parameters
    return threefry.normals(key, image.shape[:2])


def _rims(liquid):
    """Brightness of drops by the distance from their edges: equalized, embossed, smoothed; whole levels."""
    far = _mean3(canny.distance(canny.canny(liquid, 50, 150), FAR))
    embossed = jnp.clip(_correlate3(_equalized(barrier(jnp.floor(far + SLACK))), EMBOSS), 0, 255)
    return jnp.round(_mean3(embossed))


def _equalized(levels):
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
    padded = barrier(jnp.pad(barrier(x), 1, mode="reflect"))
    return sum(weight * lax.slice(padded, at, np.add(at, x.shape)) for at, weight in np.ndenumerate(kernel) if weight)
