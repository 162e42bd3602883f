"""Augmentation on the device: pure, jit-able functions `augment(images, key) -> images`, drawn image by image.

Every image has a key of its own, so what happens to it does not depend on its batch or its device: pass one key for each image, or a
single key, from which image i gets fold_in(key, i).
"""

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.core.keys import image_keys
from vmamba_jax.data.augment.erase import erase

_FILLS = {"zeros": "constant", "reflect": "reflect", "edge": "edge"}


def create(name, **options):
    """An augmentation by name; `names()` lists them, options are their keyword arguments.

    The result takes images (B, H, W, C) and a key (typed or legacy; one, or B of them) and returns images of the same shape and dtype.
    Raises ValueError for an unknown name or a value out of range, TypeError for an unknown option.
    """
    return checks.by_name("augmentation", name, _AUGMENTATIONS, options)(**options)


def names():
    """The names `create` knows."""
    return list(_AUGMENTATIONS)


def none():
    """Images as they are."""
    return lambda images, key: images


def crop(pad=2, fill="zeros"):
    """Shift by up to `pad` pixels each way: pad on all sides, then crop to the old size at a uniformly drawn place.

    pad: at least 0, in pixels; for "reflect" smaller than the image. fill: "zeros" (black), "reflect" or "edge".
    """
    return crop_flip(pad, fill, flip=0.0)


def crop_flip(pad=4, fill="reflect", flip=0.5):
    """`crop`, then a mirror image (left to right) with probability `flip`: CIFAR-10's usual augmentation (He et al. 2015, section 4.2)."""
    pad = checks.count("pad", pad, 0)
    checks.choice("fill", fill, _FILLS)
    if not 0 <= flip <= 1:
        raise ValueError(f"flip must be a probability in [0, 1], got {flip!r}")

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
            raise ValueError(f"images must be (B, H, W, C), got shape {images.shape}")
        if fill == "reflect" and pad >= min(images.shape[1:3]):
            raise ValueError(f"pad must be below the image's {images.shape[1]}x{images.shape[2]} for fill='reflect', got {pad}")
        return jax.vmap(one)(jnp.asarray(images), image_keys(key, len(images)))
    return augment


_AUGMENTATIONS = {"none": none, "crop": crop, "crop_flip": crop_flip, "erase": erase}
