"""Random erasing on the device: in some images a rectangle becomes noise (Zhong et al., arXiv 1708.04896), with timm 0.4.12's choices."""
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
    """Replace one rectangle of an image with probability `probability`.

    mode: "pixel", every value normal; "color", one normal colour; "constant", the mean. timm fills normalised images with N(0, 1), which for
    images in [0, 1] is mean + std * N(0, 1), and leaves [0, 1]: clip=True cuts it there, so that an attack's box constraint holds.
    area: share of the image's area, uniform. aspect: height by width, log-uniform. Of `ATTEMPTS` draws the first smaller than the image counts.
    mean, std: per channel, what the model subtracts and divides by; (0.0,) and (1.0,) for a model without preprocessing.
    The result takes images (B, H, W, C), floating, and a key (one, or B of them).
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
        hit = inside(box(jax.random.uniform(place, (ATTEMPTS, 4)), h, w, area, aspect), h, w) & jax.random.bernoulli(coin, probability)
        return jnp.where(hit[..., None], fill.astype(image.dtype), image)

    def augment(images, key):
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images must be (B, H, W, C) of a floating dtype, got shape {images.shape} of {images.dtype}")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, images.shape[-1]):
                raise ValueError(f"{name} must have one number for each of the {images.shape[-1]} channels, got {values}")
        return jax.vmap(one)(images, image_keys(key, len(images)))

    return augment


def box(draws, h, w, area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3)):
    """(top, left, height, width), int32, of the first rectangle that fits into h x w; zero height and width where none does.

    draws: (attempts, 4) uniform on [0, 1): for area, aspect, top and left.
    """
    size, ratio, top, left = draws.T
    size = h * w * (area[0] + (area[1] - area[0]) * size)
    ratio = jnp.exp(math.log(aspect[0]) + math.log(aspect[1] / aspect[0]) * ratio)
    height, width = jnp.round(jnp.sqrt(size * ratio)), jnp.round(jnp.sqrt(size / ratio))
    fits = (height < h) & (width < w)
    boxes = jnp.stack([jnp.floor(top * (h - height + 1)), jnp.floor(left * (w - width + 1)), height, width])
    return jnp.where(fits.any(), boxes[:, fits.argmax()], 0).astype(jnp.int32)


def inside(box, h, w):
    """(h, w) booleans: the pixels within (top, left, height, width)."""
    top, left, height, width = box
    y, x = jnp.arange(h)[:, None], jnp.arange(w)
    return (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
