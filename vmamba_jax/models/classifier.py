"""A model behind its preprocessing: [0, 1] images in, logits out. Attacks act on its input, so mean and std stay inside it."""
import dataclasses
import numbers

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmamba_jax.models.releases import IMAGENET_MEAN, IMAGENET_STD


@dataclasses.dataclass(frozen=True)
class Classifier:
    """`classifier(variables, images)`: normalise, then apply the model. Hashable, so that compiled functions can be kept per classifier.

    Attributes:
        model: a Linen module called as `model(images, train=...)`.
        mean, std: per channel, in units of [0, 1] images; a single number serves all channels.

    Raises:
        ValueError: a std that is not positive, or mean and std of different lengths.
    """
    model: nn.Module
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD

    def __post_init__(self):
        for field in ("mean", "std"):
            value = getattr(self, field)
            value = (float(value),) if isinstance(value, numbers.Real) else tuple(float(v) for v in value)
            object.__setattr__(self, field, value)
        if not all(s > 0 for s in self.std):
            raise ValueError(f"std={self.std}; expected positive numbers")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean} and std={self.std}; expected as many of one as of the other")

    def normalize(self, images):
        """(images - mean) / std over the last axis, in the images' dtype."""
        if len(self.mean) not in (1, images.shape[-1]):
            raise ValueError(f"images have {images.shape[-1]} channels; mean and std have {len(self.mean)}")
        return (images - jnp.asarray(self.mean, images.dtype)) / jnp.asarray(self.std, images.dtype)

    def __call__(self, variables, images, *, train=False, rngs=None, mutable=False):
        """Logits (b, classes) of images (b, H, W, channels) in [0, 1]; with `mutable`, (logits, updated collections).

        Args:
            variables: the model's.
            train: training mode: drop path active (needs rngs={"dropout": key}), batch statistics in use (needs mutable=["batch_stats"]).
        """
        return self.model.apply(variables, self.normalize(images), train=train, rngs=rngs, mutable=mutable)

    def init(self, key, image_shape, dtype=jnp.float32):
        """Fresh variables for images of image_shape (H, W, channels); compiled, and without the `perturbations` probes make."""
        init = jax.jit(lambda key: self.model.init(key, jnp.zeros((1, *image_shape), dtype)))
        return {name: tree for name, tree in init(key).items() if name != "perturbations"}
