"""Random erasing on the device: a rectangle of some images becomes noise (Zhong et al., arXiv 1708.04896), as in timm 0.4.12."""
import math

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.core.images import IMAGENET_MEAN, IMAGENET_STD
from vmamba_jax.core.keys import image_keys

MODES = ("pixel", "color", "constant")
ATTEMPTS = 10


def erase(probability=0.25, mode="pixel", area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3), mean=IMAGENET_MEAN, std=IMAGENET_STD,
          clip=False):
    """A function of floating images (B, H, W, C) and a key (one, or B of them) that replaces one rectangle of some images.

    The first of `ATTEMPTS` rectangles that is smaller than the image is used.

    Args:
        probability: that an image has a rectangle.
        mode: fill of the rectangle: "pixel", every value normal; "color", one normal color; "constant", the mean.
        area: range of its fraction of the image's area, uniform.
        aspect: range of its height / width, log-uniform.
        mean, std: per channel, those of the model's preprocessing; (0.0,) and (1.0,) for a model without it.
        clip: clip the fill to [0, 1], so that an attack's box constraint holds. timm fills normalized images with N(0, 1); in [0, 1] that is
            mean + std * N(0, 1), which exceeds the range.
    """
    checks.number("probability", probability, low=0, high=1.0)
    checks.choice("mode", mode, MODES)
    area, aspect = checks.interval("area", area, above=0, high=1.0), checks.interval("aspect", aspect, above=0)
    mean, std = (tuple(checks.number(name, x) for x in values) for name, values in (("mean", mean), ("std", std)))

    def one(image, key):  # image (H, W, C)
        h, w, c = image.shape
        coin, place, noise = jax.random.split(key, 3)
        shape = {"pixel": (h, w, c), "color": (1, 1, c), "constant": (1, 1, c)}[mode]
        fill = jnp.zeros(shape) if mode == "constant" else jax.random.normal(noise, shape)
        fill = jnp.asarray(mean) + jnp.asarray(std) * fill
        if clip:
            fill = jnp.clip(fill, 0, 1)
        erased = inside(box(jax.random.uniform(place, (ATTEMPTS, 4)), h, w, area, aspect), h, w) & jax.random.bernoulli(coin, probability)
        return jnp.where(erased[..., None], fill.astype(image.dtype), image)

    def augment(images, key):
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images of shape {images.shape} and {images.dtype}: expected (B, H, W, C) of a floating type")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, images.shape[-1]):
                raise ValueError(f"{name}={values}: expected one number for each of the {images.shape[-1]} channels")
        return jax.vmap(one)(images, image_keys(key, len(images)))

    return augment


def box(draws, h, w, area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3)):
    """(top, left, height, width), int32, of the first rectangle that is smaller than h x w; height and width 0 if none is.

    Args:
        draws: (attempts, 4) uniform on [0, 1): for area, aspect, top and left.
        h, w: of the image, pixels.
        area, aspect: ranges, see `erase`.
    """
    size, ratio, top, left = draws.T
    size = h * w * (area[0] + (area[1] - area[0]) * size)
    ratio = jnp.exp(math.log(aspect[0]) + math.log(aspect[1] / aspect[0]) * ratio)
    height, width = jnp.round(jnp.sqrt(size * ratio)), jnp.round(jnp.sqrt(size / ratio))
    fits = (height < h) & (width < w)
    boxes = jnp.stack([jnp.floor(top * (h - height + 1)), jnp.floor(left * (w - width + 1)), height, width])
    return jnp.where(fits.any(), boxes[:, fits.argmax()], 0).astype(jnp.int32)


def inside(box, h, w):
    """(h, w) booleans: the pixels inside (top, left, height, width)."""
    top, left, height, width = box
    y, x = jnp.arange(h)[:, None], jnp.arange(w)
    return (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
