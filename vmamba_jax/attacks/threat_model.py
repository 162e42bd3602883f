"""What an attacker may do to an image: a norm, a radius, and the box that pixel values live in."""
import dataclasses
import math

import jax
import jax.numpy as jnp

from vmamba_jax.attacks import norms
from vmamba_jax.core import checks, records
from vmamba_jax.core.keys import image_keys

NORMS = ("linf", "l2", "l1")


@records.record("eps")
class ThreatModel:
    """The images within `eps` of a given image in `norm`, and within the box [lower, upper].

    Args:
        norm: "linf", "l2" or "l1", over all values of one image.
        eps: radius >= 0 in pixel units (8 / 255); may be a traced scalar.
        lower, upper: bounds of a pixel value; images are expected inside them.
        projection: "nearest" (the nearest point of the ball) or "radial" (shrinking the perturbation, as foolbox does; it differs in l1).

    `eps` is a pytree leaf, all else is static; with a concrete radius the type hashes by value.
    """
    norm: str
    eps: float
    _: dataclasses.KW_ONLY
    lower: float = 0.0
    upper: float = 1.0
    projection: str = "nearest"

    def __post_init__(self):
        checks.choice("norm", self.norm, NORMS)
        checks.choice("projection", self.projection, ("nearest", "radial"))
        object.__setattr__(self, "eps", checks.number("eps", self.eps, low=0))
        object.__setattr__(self, "lower", checks.number("lower", self.lower))
        object.__setattr__(self, "upper", checks.number("upper", self.upper))
        if not self.lower < self.upper:
            raise ValueError(f"lower={self.lower:g}, upper={self.upper:g}: expected lower < upper")

    def project(self, images, adversarial):
        """Bring `adversarial` (batch, H, W, C) into the ball around `images`, then into the box.

        Images inside the box stay within the ball when clipped to it, so the result satisfies both. Ball-then-box is the usual PGD
        projection, and for linf it is the nearest point of the intersection; for l2 and l1 it is not in general the nearest.
        """
        eps = jnp.asarray(self.eps, images.dtype)
        if self.norm == "linf" and self.projection == "nearest":  # no subtraction: the bound then holds to the last bit
            inside = jnp.clip(adversarial, images - eps, images + eps)
        elif self.projection == "radial":
            inside = images + norms.radial(adversarial - images, eps, self.norm)
        else:
            ball = {"l2": norms.l2, "l1": norms.l1}[self.norm]
            inside = images + ball(adversarial - images, eps)
        return jnp.clip(inside, self.lower, self.upper)

    def random_start(self, images, key):
        """A point drawn uniformly (by volume) from the ball around each image, clipped to the box.

        linf: independent uniform values. l2: a Gaussian direction, radius eps * U^(1/d) for d values per image (torchattacks draws the
        radius eps * U, closer to the image). l1: signed exponential spacings. `key` is one key or one per image.
        """
        shape, dtype, d = images.shape[1:], images.dtype, math.prod(images.shape[1:])

        def linf(key):
            return jax.random.uniform(key, shape, dtype, -1, 1)

        def l2(key):
            direction, radius = jax.random.split(key)
            x = jax.random.normal(direction, shape, dtype)
            return x / jnp.sqrt((x * x).sum()) * jax.random.uniform(radius, (), dtype) ** (1 / d)

        def l1(key):
            size, sign = jax.random.split(key)
            x = jax.random.exponential(size, (d + 1,), dtype)
            return (x[:d] / x.sum()).reshape(shape) * jax.random.rademacher(sign, shape, dtype)

        noise = jax.vmap({"linf": linf, "l2": l2, "l1": l1}[self.norm])(image_keys(key, len(images)))
        return self.project(images, images + jnp.asarray(self.eps, dtype) * noise)

    def distance(self, images, adversarial):
        """How far each image was moved, in this norm: (batch,)."""
        return norms.length(adversarial - images, self.norm)

    def __repr__(self):
        return records.show("ThreatModel", {field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
