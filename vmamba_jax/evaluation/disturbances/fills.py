"""What stands where information was taken away: black, a colour, noise, the same pixels in another order, or what an attack puts there.

A content is called as `content(images, mask, cell, keys, logits_fn, labels)` and returns images (b, H, W, C), of which the pixels of `mask`
(b or 1, H, W, 1) are used; `cell` (H, W) numbers the patches. A config names one, with its arguments: "zeros", ["noise", 0.3].
"""
import jax
import jax.numpy as jnp

from vmamba_jax.attacks.gradient.masked import MaskedPGD
from vmamba_jax.core import checks, grids
from vmamba_jax.core.records import record
from vmamba_jax.models.releases import IMAGENET_MEAN


class Content:
    """`draws`: whether it needs keys; `needs_model`: whether it needs logits_fn and labels."""
    draws = needs_model = False

    @property
    def settings(self):
        arguments = [list(value) if isinstance(value, tuple) else value for value in vars(self).values()]
        return [self.name, *arguments] if arguments else self.name

    def __repr__(self):
        return repr(self.settings)


@record()
class Zeros(Content):
    """0 in [0, 1] pixel space: black, whatever the model's preprocessing (Malik et al., arXiv 2406.09407)."""
    name = "zeros"

    def __call__(self, images, mask, cell, keys, logits_fn, labels):
        return jnp.zeros_like(images)


@record()
class Colour(Content):
    """One colour, a number for each channel or one for all: by default ImageNet's mean, which is 0 after its preprocessing."""
    value: tuple = IMAGENET_MEAN

    name = "mean"

    def __post_init__(self):
        value = self.value if isinstance(self.value, (tuple, list)) else (self.value,)
        object.__setattr__(self, "value", tuple(checks.number("value", x, low=0) for x in value))
        if max(self.value) > 1:
            raise ValueError(f"value={self.value}: expected numbers in [0, 1]")

    def __call__(self, images, mask, cell, keys, logits_fn, labels):
        if len(self.value) not in (1, images.shape[-1]):
            raise ValueError(f"value={self.value} for images of {images.shape[-1]} channels: expected a number for each, or one for all")
        return jnp.broadcast_to(jnp.asarray(self.value, images.dtype), images.shape)


@record()
class Noise(Content):
    """The pixels plus Gaussian noise of standard deviation `sigma` in every channel, kept in [0, 1]."""
    sigma: float = 0.25

    name, draws = "noise", True

    def __post_init__(self):
        object.__setattr__(self, "sigma", checks.number("sigma", self.sigma, low=0))

    def __call__(self, images, mask, cell, keys, logits_fn, labels):
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
        return jnp.clip(images + self.sigma * noise, 0, 1)


@record()
class Shuffle(Content):
    """The pixels themselves in random order, each patch's within the patch; channels stay together."""
    name, draws = "shuffle", True

    def __call__(self, images, mask, cell, keys, logits_fn, labels):
        mask = jnp.broadcast_to(mask[..., 0], images.shape[:3])
        return jax.vmap(grids.shuffled_within, (0, 0, None, 0))(keys, images, cell, mask)


@record()
class Adversarial(Content):
    """What `attacks.masked_pgd` makes of them, in linf: `eps` and `step_size` in pixel units; step_size None: 2.5 eps / steps."""
    eps: float = 8 / 255
    steps: int = 10
    step_size: float | None = None

    name, draws, needs_model = "pgd", True, True

    def __post_init__(self):
        self._attack(None)

    def _attack(self, mask):
        return MaskedPGD(self.eps, self.steps, self.step_size, mask=(lambda images: images) if mask is None else mask)

    def __call__(self, images, mask, cell, keys, logits_fn, labels):
        return self._attack(jnp.broadcast_to(mask, (*images.shape[:3], 1)))(logits_fn, images, labels, keys)


CONTENTS = {content.name: content for content in (Zeros, Colour, Noise, Shuffle, Adversarial)}


def get(content):
    """The content that a name, or a list of a name and its arguments, describes: "zeros", ("noise", 0.3)."""
    if isinstance(content, Content):
        return content
    name, *arguments = (content,) if isinstance(content, str) else content if isinstance(content, (tuple, list)) and content else (None,)
    if name not in CONTENTS:
        raise ValueError(f"content={content!r}: expected one of {', '.join(map(repr, CONTENTS))}, or a list of it and its arguments")
    return CONTENTS[name](*(tuple(value) if isinstance(value, list) else value for value in arguments))
