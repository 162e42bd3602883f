"""Fills for dropped pixels: zeros, a constant color, noise, shuffled pixels or an adversarial perturbation.

A fill is called as `fill(images, mask, patch, keys, logits_fn, labels)` and returns images (b, H, W, C), of which the pixels of `mask`
(b or 1, H, W, 1) are used; `patch` (H, W) holds each pixel's patch number. A config names a fill with its arguments: "zeros", ["noise",
0.3].
"""
import jax
import jax.numpy as jnp

from vmamba_jax.attacks.gradient.masked import MaskedPGD
from vmamba_jax.core import checks, grids
from vmamba_jax.core.images import IMAGENET_MEAN
from vmamba_jax.core.records import record


class Fill:
    """Base class of fills.

    Attributes:
        draws: whether the call needs keys.
        needs_model: whether the call needs logits_fn and labels.
    """
    draws = needs_model = False

    @property
    def settings(self):
        arguments = [list(value) if isinstance(value, tuple) else value for value in vars(self).values()]
        return [self.name, *arguments] if arguments else self.name

    def __repr__(self):
        return repr(self.settings)


@record()
class Zeros(Fill):
    """0 in [0, 1] pixel space, before the model's preprocessing (Malik et al., arXiv 2406.09407)."""
    name = "zeros"

    def __call__(self, images, mask, patch, keys, logits_fn, labels):
        return jnp.zeros_like(images)


@record()
class Color(Fill):
    """A constant color, one number per channel or one for all; by default ImageNet's mean, which its preprocessing maps to 0."""
    value: tuple = IMAGENET_MEAN

    name = "mean"

    def __post_init__(self):
        value = self.value if isinstance(self.value, (tuple, list)) else (self.value,)
        object.__setattr__(self, "value", tuple(checks.number("value", x, low=0) for x in value))
        if max(self.value) > 1:
            raise ValueError(f"value={self.value}: expected numbers in [0, 1]")

    def __call__(self, images, mask, patch, keys, logits_fn, labels):
        if len(self.value) not in (1, images.shape[-1]):
            raise ValueError(f"value={self.value}: expected one number, or one for each of {images.shape[-1]} channels")
        return jnp.broadcast_to(jnp.asarray(self.value, images.dtype), images.shape)


@record()
class Noise(Fill):
    """The pixels plus Gaussian noise of standard deviation `sigma` in every channel, clipped to [0, 1]."""
    sigma: float = 0.25

    name, draws = "noise", True

    def __post_init__(self):
        object.__setattr__(self, "sigma", checks.number("sigma", self.sigma, low=0))

    def __call__(self, images, mask, patch, keys, logits_fn, labels):
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
        return jnp.clip(images + self.sigma * noise, 0, 1)


@record()
class Shuffle(Fill):
    """The same pixels in random order, within each patch; the channels of a pixel stay together."""
    name, draws = "shuffle", True

    def __call__(self, images, mask, patch, keys, logits_fn, labels):
        mask = jnp.broadcast_to(mask[..., 0], images.shape[:3])
        return jax.vmap(grids.shuffled_within, (0, 0, None, 0))(keys, images, patch, mask)


@record()
class Adversarial(Fill):
    """The pixels as `attacks.masked_pgd` in linf changes them; `eps` and `step_size` in pixel units; step_size None: 2.5 eps / steps."""
    eps: float = 8 / 255
    steps: int = 10
    step_size: float | None = None

    name, draws, needs_model = "pgd", True, True

    def __post_init__(self):
        self._attack(None)

    def _attack(self, mask):
        return MaskedPGD(self.eps, self.steps, self.step_size, mask=(lambda images: images) if mask is None else mask)

    def __call__(self, images, mask, patch, keys, logits_fn, labels):
        return self._attack(jnp.broadcast_to(mask, (*images.shape[:3], 1)))(logits_fn, images, labels, keys)


FILLS = {fill.name: fill for fill in (Zeros, Color, Noise, Shuffle, Adversarial)}


def get(content):
    """The fill described by a name, or by a list of a name and its arguments: "zeros", ("noise", 0.3)."""
    if isinstance(content, Fill):
        return content
    name, *arguments = (content,) if isinstance(content, str) else content if isinstance(content, (tuple, list)) and content else (None,)
    if name not in FILLS:
        raise ValueError(f"content={content!r}: expected one of {', '.join(map(repr, FILLS))}, or a list of it and its arguments")
    return FILLS[name](*(tuple(value) if isinstance(value, list) else value for value in arguments))
