"""What all disturbances share: the call, the checks, the random numbers, the settings on record."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks, records
from vmamba_jax.core.keys import fold_in, image_keys
from vmamba_jax.evaluation.disturbances import fills


@records.record()
class Disturbance(records.Described):
    """A pure function `disturb(images, keys) -> images`, described by its fields.

    A subclass is a `records.record` with a `name`, `draws` (whether it needs keys) and `run(images, keys, logits_fn, labels)`; keys are one for
    each image, or one in all where `shared`.

    Attributes:
        shared: draw once for all images, from `seed`, in place of once for each image from its key. The published program draws once a
            batch (arXiv 2406.09407); here the set's images all get the same, so that nothing depends on the batches.
        seed: of the shared draw: as many seeds, as many repetitions.
        needs_model: whether the call needs logits_fn and labels too.
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
            keys: one random key (image i draws from `fold_in(key, i)`) or one per image; None where nothing is drawn, or `shared`.
            logits_fn, labels: the model and its labels (b,), where `needs_model`.
        """
        if getattr(images, "ndim", None) != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images are {getattr(images, 'dtype', type(images).__name__)}{getattr(images, 'shape', '')}: expected a floating "
                             "type and (b, height, width, channels)")
        if self.needs_model and (logits_fn is None or labels is None):
            raise ValueError(f"{self!r} without logits_fn and labels: expected both, as it asks the model")
        if self.draws and not self.shared and keys is None:
            raise ValueError(f"{self!r} with keys=None: expected a random key, or shared=True")
        if not self.draws:
            keys = None
        else:
            keys = jax.random.key(self.seed)[None] if self.shared else image_keys(keys, len(images))
        return self.run(images, keys, logits_fn, labels)

    @property
    def settings(self):
        """Name and fields as plain values for a results file; `disturbances.create(**settings)` makes the disturbance again."""
        fields = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        drawn = {name: fields.pop(name) for name in ("shared", "seed")}
        return {"name": self.name} | fields | (drawn if self.draws else {})


@records.record()
class Occlusion(Disturbance):
    """Some pixels replaced: a subclass gives `places(images, keys, logits_fn, labels)` -> (mask (b or 1, H, W, 1), cells (H, W)).

    Attributes:
        content: what replaces them, see `contents`: "zeros", "mean", "noise", "shuffle" or "pgd", or a list of it and its arguments.
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
        where, what = (None, None) if keys is None else (fold_in(keys, 0), fold_in(keys, 1))
        mask, cell = self.places(images, where, logits_fn, labels)
        if what is not None and self.shared:
            what = jnp.broadcast_to(what, len(images))
        return jnp.where(mask, self.content(images, mask, cell, what, logits_fn, labels), images)

    def mask(self, images, keys=None, logits_fn=None, labels=None):
        """Where pixels are replaced, (b or 1, H, W, 1) bool; keys are one for each image, as in the call."""
        keys = jax.random.key(self.seed)[None] if self.shared else keys
        return self.places(images, None if keys is None else fold_in(keys, 0), logits_fn, labels)[0]


def _plain(value):
    if isinstance(value, tuple):
        return list(value)
    if hasattr(value, "settings"):
        return value.settings
    return getattr(value, "__name__", repr(value)) if callable(value) else value
