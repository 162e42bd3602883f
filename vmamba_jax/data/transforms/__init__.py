"""Transforms of one image on the host: `transform(image, rng) -> uint8 (size, size, C)`, a pure function of both.

    transform = transforms.create("train", size=224, rand_augment="rand-m9-mstd0.5-inc1")
    x = transform(photo, np.random.default_rng((seed, epoch, index)))

image: uint8 (H, W, C) with C 1 or 3, or a Pillow image; rng: numpy.random.Generator. Transforms are frozen dataclasses, so they pickle for
worker processes. Sizes are in pixels. Augmentation of a batch on the device is in `data.augment` and `data.mix`; transforms of images with
label maps and instances are in `joint`.
"""
from vmamba_jax.core import checks
from vmamba_jax.data.transforms import joint
from vmamba_jax.data.transforms.color_jitter import ColorJitter
from vmamba_jax.data.transforms.crops import Evaluation, SimpleCrop, Train
from vmamba_jax.data.transforms.rand_augment import RandAugment, parse

__all__ = ["ColorJitter", "Evaluation", "RandAugment", "SimpleCrop", "Train", "create", "joint", "names", "parse"]

_TRANSFORMS = {"train": Train, "simple_crop": SimpleCrop, "evaluation": Evaluation}


def create(name, **options):
    """A transform by name.

    Args:
        name: one of `names()`.
        options: fields of the transform.

    Raises:
        ValueError: an unknown name, or a value out of range. TypeError: an unknown option, or a value of the wrong type.
    """
    return checks.by_name("transform", name, _TRANSFORMS, options)(**options)


def names():
    """The names that `create` accepts."""
    return list(_TRANSFORMS)
