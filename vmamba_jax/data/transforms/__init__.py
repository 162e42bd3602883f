"""Transforms on the host, one photo at a time: `transform(image, rng) -> uint8 (size, size, C)`, a pure function of both.

    transform = transforms.create("train", size=224, rand_augment="rand-m9-mstd0.5-inc1")
    x = transform(photo, np.random.default_rng((seed, epoch, index)))

image: uint8 (H, W, C) with C 1 or 3, or a Pillow image; rng: numpy.random.Generator. Transforms are frozen records: they compare, print and
pickle, so worker processes can have them. Sizes are in pixels; what is drawn on the device is in `data.augment` and `data.mix`.
"""
from vmamba_jax.core import checks
from vmamba_jax.data.transforms.color_jitter import ColorJitter
from vmamba_jax.data.transforms.crops import Evaluation, SimpleCrop, Train
from vmamba_jax.data.transforms.rand_augment import RandAugment, parse

__all__ = ["ColorJitter", "Evaluation", "RandAugment", "SimpleCrop", "Train", "create", "names", "parse"]

_TRANSFORMS = {"train": Train, "simple_crop": SimpleCrop, "evaluation": Evaluation}


def create(name, **options):
    """A transform by name; `names()` lists them, options are their fields.

    Raises ValueError for an unknown name or a value out of range, TypeError for an unknown option or a value of the wrong kind.
    """
    return checks.by_name("transform", name, _TRANSFORMS, options)(**options)


def names():
    """The names `create` knows."""
    return list(_TRANSFORMS)
