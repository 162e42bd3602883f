"""Threat models: a norm, a radius, and the box of valid pixel values."""
import dataclasses

import jax.numpy as jnp

from vmamba_jax.attacks import norms, precision
from vmamba_jax.core import checks, records
from vmamba_jax.core.keys import image_keys

NORMS = ("linf", "l2", "l1")


@records.record("eps")
class ThreatModel:
    """The images within `eps` of a given image in `norm`, and within the box [lower, upper].

    `eps` is a pytree leaf, all other fields are static; with a concrete radius the type hashes by value.

    Args:
        norm: "linf", "l2" or "l1", over all values of one image.
        eps: radius >= 0 in pixel units (8 / 255); may be a traced scalar.
        lower, upper: bounds of a pixel value; images are expected inside them.
        projection: "nearest" (the nearest point of the ball) or "radial" (scales the perturbation down, as foolbox does; it differs in l1).
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
        """`adversarial` (batch, H, W, C) projected onto the ball around `images`, then onto the box.

        Clipping to the box keeps a point within the ball if the images are inside the box, so the result satisfies both. Ball-then-box is
        the usual PGD projection; in linf it is the nearest point of the intersection, in l2 and l1 in general it is not. In a 16-bit
        type the projection is computed in float32 and rounded towards the images.
        """
        if precision.narrow(images):
            return precision.rounded_towards(images, self.project(*(x.astype(jnp.float32) for x in (images, adversarial))))
        if self.norm == "linf" and self.projection == "nearest":  # no subtraction: the bound then holds to the last bit
            eps = jnp.asarray(self.eps, images.dtype)
            return jnp.clip(jnp.clip(adversarial, images - eps, images + eps), self.lower, self.upper)
        return jnp.clip(images + self.into_ball(adversarial - images), self.lower, self.upper)

    def into_ball(self, delta):
        """Perturbations `delta` (batch, H, W, C) projected onto the ball around zero, by `projection`."""
        eps = jnp.asarray(self.eps, delta.dtype)
        if self.projection == "radial":
            return norms.radial(delta, eps, self.norm)
        return {"linf": norms.linf, "l2": norms.l2, "l1": norms.l1}[self.norm](delta, eps)

    def random_start(self, images, key, mask=None):
        """A random point of the ball around each image, uniform by volume, clipped to the box.

        torchattacks draws the l2 radius as eps * U, closer to the image than the uniform distribution's eps * U^(1/d).

        Args:
            images: (batch, H, W, C).
            key: one random key, or one per image.
            mask: bool, broadcastable to `images`: perturb only these values, uniformly in their own ball; None: all.
        """
        noise = norms.uniform_in_ball(images, image_keys(key, len(images)), self.norm, mask)
        return self.project(images, images + jnp.asarray(self.eps, images.dtype) * noise)

    def distance(self, images, adversarial):
        """The norm of each image's perturbation, at least in float32: (batch,)."""
        wide = jnp.promote_types(adversarial.dtype, jnp.float32)
        return norms.length(adversarial.astype(wide) - jnp.asarray(images, wide), self.norm)

    def __repr__(self):
        return records.show("ThreatModel", {field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
