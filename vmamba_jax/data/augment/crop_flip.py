"""Crops and flips of a batch on the device, and `create` for every augmentation: pure, jit-able functions `augment(images, key) -> images`.

Every image has a key of its own, so its augmentation does not depend on the batch or the device: pass one key per image, or a single key,
from which image i gets fold_in(key, i).
"""

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.core.keys import image_keys
from vmamba_jax.data.augment.erase import erase

_FILLS = {"zeros": "constant", "reflect": "reflect", "edge": "edge"}


def create(name, **options):
    """An augmentation by name: a function of images (B, H, W, C) and a key, which returns images of the same shape and dtype.

    The key is typed or legacy; one, or B of them.

    Args:
        name: one of `names()`.
        options: keyword arguments of the augmentation.

    Raises:
        ValueError: an unknown name, or a value out of range. TypeError: an unknown option.
    """
    return checks.by_name("augmentation", name, _AUGMENTATIONS, options)(**options)


def names():
    """The names that `create` accepts."""
    return list(_AUGMENTATIONS)


def none():
    """No augmentation: returns the images."""
    return lambda images, key: images


def crop(pad=2, fill="zeros"):
    """Random translation: padding on all sides, then a crop of the old size at a uniform position.

    Args:
        pad: pixels, at least 0; for fill="reflect" smaller than the image.
        fill: "zeros" (black), "reflect" or "edge".
    """
    return crop_flip(pad, fill, flip=0.0)


def crop_flip(pad=4, fill="reflect", flip=0.5):
    """`crop`, then a horizontal flip: CIFAR-10's usual augmentation.

    Args:
        pad, fill: see `crop`.
        flip: probability of the flip, in [0, 1].

    Source: He et al. 2015, arXiv 1512.03385, section 4.2.
    """
    pad = checks.count("pad", pad, 0)
    checks.choice("fill", fill, _FILLS)
    checks.number("flip", flip, low=0, high=1)

    def one(image, key):  # image (H, W, C)
        crop_key, flip_key = jax.random.split(key)
        if pad:
            top, left = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
            padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=_FILLS[fill])
            image = jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
        if flip:
            image = jnp.where(jax.random.bernoulli(flip_key, flip), image[:, ::-1], image)
        return image

    def augment(images, key):
        if images.ndim != 4:
            raise ValueError(f"images of shape {images.shape}: expected (B, H, W, C)")
        if fill == "reflect" and pad >= min(images.shape[1:3]):
            raise ValueError(f"pad={pad}: expected less than the sides {images.shape[1]}x{images.shape[2]} of the image for fill='reflect'")
        return jax.vmap(one)(jnp.asarray(images), image_keys(key, len(images)))
    return augment


_AUGMENTATIONS = {"none": none, "crop": crop, "crop_flip": crop_flip, "erase": erase}
