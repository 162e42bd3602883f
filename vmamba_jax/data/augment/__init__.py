"""Random augmentation of a batch on the device: `create(name, **options)` returns a pure function `augment(images, key) -> images`."""
from vmamba_jax.data.augment.crop_flip import create, names

__all__ = ["create", "names"]
