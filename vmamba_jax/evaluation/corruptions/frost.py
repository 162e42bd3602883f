"""Frost: a photograph of frost added to the image. The photographs are those of the package `imagecorruptions`; none is kept here."""
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

NAMES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")  # the released program never takes the sixth
SCALES = {224: 1.0, 64: 0.3, 32: 0.2}
ADVICE = ("frost needs the photographs of frost that the package imagecorruptions brings: pip install 'vmamba_jax[corruptions]' "
          "(imagecorruptions-imaug)")


def frost(image, patch, weight, frost_weight):
    """weight * image + frost_weight * patch; patch: (H, W, 3) of a texture, in [0, 1]."""
    return weight * image + frost_weight * patch


def draw_patch(key, image, weight, frost_weight, textures):
    """A patch of the image's size from a random place of a random texture.

    textures: {"pixels": (t, h, w, 3) uint8, "sizes": (t, 2)} as of `load_textures`; a place lies at least one pixel before the far border.
    """
    del weight, frost_weight
    which, row, col = jax.random.split(key, 3)
    which = jax.random.randint(which, (), 0, len(textures["sizes"]))
    pixels, sizes = map(jnp.asarray, (textures["pixels"], textures["sizes"]))
    room = sizes[which] - jnp.array(image.shape[:2])
    row, col = jax.random.randint(row, (), 0, room[0]), jax.random.randint(col, (), 0, room[1])
    patch = lax.dynamic_slice(pixels, (which, row, col, 0), (1, *image.shape))[0]
    return patch.astype(jnp.float32) / 255


@functools.lru_cache(maxsize=3)
def load_textures(table):
    """The five textures as the released program of that table scales them, set into one array: see `draw_patch`. Raises ImportError."""
    spec = importlib.util.find_spec("imagecorruptions")
    if spec is None:
        raise ImportError(ADVICE)
    folder = pathlib.Path(spec.origin).parent / "frost"
    textures = [_scaled(np.asarray(Image.open(folder / name).convert("RGB")), SCALES[table]) for name in NAMES]
    sizes = np.array([texture.shape[:2] for texture in textures], np.int32)
    pixels = np.zeros((len(textures), *sizes.max(0), 3), np.uint8)
    for whole, texture in zip(pixels, textures, strict=True):
        whole[:texture.shape[0], :texture.shape[1]] = texture
    return {"pixels": pixels, "sizes": sizes}


def _scaled(texture, scale):
    """Linear interpolation without smoothing, pixel centres aligned, as OpenCV's resize."""
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
