"""The stated preprocessing of a classifier, and the function of weights and images that results from it."""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.core.images import LEVELS

LAYOUTS = ("NHWC", "NCHW", "HWC", "CHW")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """[0, 1] images (b, H, W, C) -> what the model takes. Nothing is done that is not stated.

    Attributes:
        mean, std: per channel, tuples, in the units of `bounds`; None: no normalization.
        bounds: the model's pixel values for black and white.
        layout: axes of the model's input; without "N" the model takes one image and is mapped over the batch.
    """
    mean: tuple | None = None
    std: tuple | None = None
    bounds: tuple = (0.0, 1.0)
    layout: str = "NHWC"

    def __post_init__(self):
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean={self.mean}, std={self.std}: expected both or neither")
        for field in ("mean", "std"):
            value = getattr(self, field)
            if value is not None:
                values = value if hasattr(value, "__len__") else (value,)
                object.__setattr__(self, field, tuple(checks.number(field, float(v), above=0 if field == "std" else None) for v in values))
        if self.mean is not None and len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise ValueError(f"mean={self.mean}, std={self.std}: expected the same number of channels")
        object.__setattr__(self, "bounds", checks.interval("bounds", self.bounds))
        if self.bounds[0] == self.bounds[1]:
            raise ValueError(f"bounds={self.bounds}: expected different values for black and white")
        checks.choice("layout", self.layout, LAYOUTS)

    def __call__(self, images):
        if images.dtype == jnp.uint8:
            images = jnp.asarray(LEVELS)[images]
        low, high = self.bounds
        x = images if self.bounds == (0, 1) else images * (high - low) + low
        if self.mean is not None:
            if (channels := max(len(self.mean), len(self.std))) not in (1, x.shape[-1]):
                raise ValueError(f"images.shape={x.shape}: expected {channels} channels, as mean and std have")
            x = (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
        return x.transpose(0, 3, 1, 2) if self.layout.endswith("CHW") else x

    def __str__(self):
        text = "no normalization" if self.mean is None else f"mean {_short(self.mean)}, std {_short(self.std)}"
        scaled = "" if self.bounds == (0, 1) else f"scaled to [{self.bounds[0]:g}, {self.bounds[1]:g}], "
        return f"{scaled}{text}, {self.layout}"


def _short(values):
    return "/".join(f"{v:.4g}" for v in values)


@dataclasses.dataclass(frozen=True)
class Applied:
    """The function (weights, [0, 1] images) -> logits of a model with its preprocessing.

    Attributes:
        apply: (weights, the model's input) -> logits; static, hashable.
        preprocessing: what the images pass first.
    """
    apply: Callable
    preprocessing: Preprocessing

    def __call__(self, weights, images):
        x = self.preprocessing(images)
        if "N" in self.preprocessing.layout:
            return self.apply(weights, x)
        return jax.vmap(lambda image: self.apply(weights, image))(x)
