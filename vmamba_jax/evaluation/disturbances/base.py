"""Base classes of all disturbances: the call, its checks, its random numbers and the settings for a results file."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks, records
from vmamba_jax.core.keys import fold_in, image_keys
from vmamba_jax.evaluation.disturbances import fills


@records.record()
class Disturbance(records.Described):
    """A pure function `disturb(images, keys) -> images`, described by its fields.

    A subclass is a `records.record` with a `name`, `draws` (whether it needs keys) and `run(images, keys, logits_fn, labels)`, where keys
    are one per image, or a single one if `shared`.

    Attributes:
        shared: use the same random numbers for all images, from `seed`, instead of one key per image. The published program draws once per
            batch (arXiv 2406.09407); here all images of a set get the same, so that the result does not depend on the batches.
        seed: of the shared random numbers, >= 0.
        needs_model: whether the call needs logits_fn and labels.
    """
    _: dataclasses.KW_ONLY
    shared: bool = False
    seed: int = 0

    name = None
    draws = False
    needs_model = False

    def __post_init__(self):
        checks.flag("shared", self.shared)
        checks.count("seed", self.seed, 0)

    def __call__(self, images, keys=None, logits_fn=None, labels=None):
        """Disturbed images, of the shape and dtype of `images`, in [0, 1].

        Args:
            images: (b, H, W, C), floating, in [0, 1].
            keys: one random key (image i uses `fold_in(key, i)`) or one per image; None: only for a disturbance without random numbers, or
                with `shared`.
            logits_fn, labels: the model, and labels (b,), if `needs_model`.
        """
        checks.pixels(images, 0, 1)
        if labels is not None:
            checks.classes(labels, len(images))
        if self.needs_model and (logits_fn is None or labels is None):
            raise ValueError(f"logits_fn or labels is None: expected both for {self!r}, which evaluates the model")
        if self.draws and not self.shared and keys is None:
            raise ValueError(f"keys=None: expected a random key for {self!r}, or shared=True")
        if not self.draws:
            keys = None
        else:
            keys = jax.random.key(self.seed)[None] if self.shared else image_keys(keys, len(images))
        if not len(images):
            return images
        return self.run(images, keys, logits_fn, labels)

    @property
    def settings(self):
        """Name and fields as plain values for a results file; `disturbances.create(**settings)` returns an equal disturbance."""
        fields = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        drawn = {name: fields.pop(name) for name in ("shared", "seed")}
        return {"name": self.name} | fields | (drawn if self.draws else {})


@records.record()
class Occlusion(Disturbance):
    """Some pixels replaced. A subclass defines `places(images, keys, logits_fn, labels)` -> (mask (b or 1, H, W, 1), patch numbers (H, W)).

    Attributes:
        content: what replaces the pixels, see `fills`: "zeros", "mean", "noise", "shuffle" or "pgd", or a list of a name and its arguments.
    """
    _: dataclasses.KW_ONLY
    content: object = "zeros"

    places_draw = False
    places_need_model = False

    def __post_init__(self):
        super().__post_init__()
        self._set(content=fills.get(self.content))

    draws = property(lambda self: self.places_draw or self.content.draws)
    needs_model = property(lambda self: self.places_need_model or self.content.needs_model)

    def run(self, images, keys, logits_fn, labels):
        mask_keys, fill_keys = (None, None) if keys is None else (fold_in(keys, 0), fold_in(keys, 1))
        mask, patch = self.places(images, mask_keys, logits_fn, labels)
        if fill_keys is not None and self.shared:
            fill_keys = jnp.broadcast_to(fill_keys, len(images))
        return jnp.where(mask, self.content(images, mask, patch, fill_keys, logits_fn, labels), images)

    def mask(self, images, keys=None, logits_fn=None, labels=None):
        """Which pixels are replaced, (b or 1, H, W, 1) bool; keys: one per image, as in the call."""
        keys = jax.random.key(self.seed)[None] if self.shared else keys
        return self.places(images, None if keys is None else fold_in(keys, 0), logits_fn, labels)[0]


def _plain(value):
    if isinstance(value, tuple):
        return list(value)
    if hasattr(value, "settings"):
        return value.settings
    return getattr(value, "__name__", repr(value)) if callable(value) else value
