"""Patch-Fool: an attack that replaces a few patches of an image, without a norm bound."""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vmamba_jax.attacks.base import Attack
from vmamba_jax.attacks.patch_fool import optimization
from vmamba_jax.attacks.patch_fool import selection as patches
from vmamba_jax.core import checks, grids
from vmamba_jax.core.images import IMAGENET_MEAN, IMAGENET_STD
from vmamba_jax.core.records import record

MODES = ("cross_entropy", "attention")
SELECTIONS = ("saliency", "attention", "random", "given")
VERSIONS = ("released", "exact")
MILD_NORMS = (None, "linf", "l2")


@record("learning_rate", "decay", "attention_weight", "sparse_learning_rate", "mild_eps", "with_attention")
class PatchFool(Attack):
    """Adam maximizes the loss over the pixel values of chosen patches, from random values; returns the last iterate.

    The call takes `given` besides the arguments of every attack: with selection="given", and only then, (batch, patches) integers, the
    patches to replace, counted row by row. There is no threat model: the attack changes at most `patches` patches, or `sparse` pixels of
    them.

    The defaults fit any model: cross-entropy, also the released program's default, on the patches of largest input gradient. The paper's
    attack on transformers is mode="attention", selection="attention" with `with_attention`, usually `analysis.attention_fn(model,
    variables)`. For a state space model that function returns the attention that the hidden attention matrices of its scans pay to each
    position, which is enough for the selection.

    Args:
        patch_size: side of a patch in pixels; must divide both sides of the images.
        patches: number of patches replaced per image.
        steps, learning_rate, decay, decay_every: of Adam; the rate, in units of `std`, is multiplied by `decay` every `decay_every` steps.
        mode: "cross_entropy", or "attention": maximize also the log attention that all tokens pay to the first chosen patch, in each of the
            layers 1 ... n / 2 - 1 of n. It takes one more backward pass for each of these layers; the logits then come from
            `with_attention`.
        selection: "saliency" (summed magnitude of the gradient of the cross-entropy), "attention" (the most attention received in
            `attention_layer`), "random" (all different; the original may draw one twice), or "given" in the call.
        with_attention: images -> (logits, attention); attention[l] holds layer l's probabilities (batch, heads, queries, keys) or, for
            selection only, a map (batch, h, w) of the attention received. Not in `settings`. The weights of a `jax.tree_util.Partial` are
            leaves of the attack: jax.jit(lambda attack, *args: attack(*args)) embeds none in the program.
        attention_layer: the layer used for selection, counted from 0, or from the end if negative.
        attention_weight: weight of each layer's loss relative to the cross-entropy.
        class_tokens: number of tokens before those of the patches (1 for ViT).
        surgery: how the part of a layer's gradient against the cross-entropy's is removed: "exact", by projection as in the paper, or
            "released", as in the program: the removed part is longer by a factor of the length of the cross-entropy's gradient.
        sparse: number of pixels of the chosen patches that are replaced; None: all. Adam learns a score per pixel at `sparse_learning_rate`
            for `sparse_steps` steps (0: the initial random choice is final), with a straight-through gradient of the choice of the highest
            scores.
        sparse_gradient: what the gradient of a score measures: "exact", replacing the image's pixel by the attack's, or "released", as in
            the program, replacing `mean` by the attack's pixel.
        mild_norm, mild_eps: bound of the perturbation in pixel units, "linf", or "l2" of each channel over the patches; None: no bound.
        mean_over: batch size over which the losses count as means, 64 in the original. It only matters relative to Adam's 1e-8 and for
            surgery="released". The result does not depend on the actual batch.
        mean, std: in pixel units, one number, or one per channel. The original acts on normalized images, this attack on [0, 1]: std is the
            unit of its steps and gradients (1: pixel units), by default ImageNet's, as in the original. The optimized quantity is pixel
            values, not a difference, so the mean only matters for sparse_gradient="released".
        bounds: lowest and highest value of a pixel; the initial values are uniform between them.

    Source: Fu et al., ICLR 2022, sections 3 and 4, and their program.
    """
    patch_size: int = 16
    patches: int = 1
    steps: int = 250
    learning_rate: float = 0.22
    mode: str = "cross_entropy"
    selection: str = "saliency"
    _: dataclasses.KW_ONLY
    with_attention: Callable | None = None
    decay: float = 0.95
    decay_every: int = 10
    attention_layer: int = 4
    attention_weight: float = 0.002
    class_tokens: int = 1
    surgery: str = "released"
    sparse: int | None = None
    sparse_steps: int = 200
    sparse_learning_rate: float = 0.01
    sparse_gradient: str = "released"
    mild_norm: str | None = None
    mild_eps: float | None = None
    mean_over: int = 64
    mean: float | tuple[float, ...] = IMAGENET_MEAN
    std: float | tuple[float, ...] = IMAGENET_STD
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "patch_fool"
    targeted = False
    needs_key = "the patches start at random values"

    @property
    def norm(self):
        """The norm of a mild attack; "patches" for an unbounded one."""
        return self.mild_norm or "patches"

    @property
    def eps(self):
        """The radius of a mild attack in pixel units; None for an unbounded one."""
        return self.mild_eps

    @property
    def settings(self):
        settings = super().settings
        settings.pop("with_attention")
        return settings

    def run(self, logits_fn, images, labels, keys, *, given=None):
        self._check_images(images)
        keys = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(keys)
        index = self.choose(logits_fn, images, labels, keys[0], given)
        height, width, channels = images.shape[1:]
        start, scores = (jax.vmap(lambda key, depth=depth: jax.random.uniform(key, (height, width, depth), _wide(images)))(keys)
                         for keys, depth in ((keys[1], channels), (keys[2], 1)))
        return self.search(logits_fn, images, labels, index, start, scores)[0]

    def choose(self, logits_fn, images, labels, keys, given=None):
        """The patches to replace, (batch, patches) int, highest score first."""
        if (given is not None) != (self.selection == "given"):
            raise ValueError(f"given={given if given is None else given.shape}, selection={self.selection!r}: expected given=... exactly "
                             "if selection='given'")
        if self.selection == "random":
            rows, columns = grids.of_patch_size(images.shape, self.patch_size)
            return patches.random(keys, rows * columns, self.patches)
        if self.selection == "given":
            if given.shape != (len(images), self.patches) or not jnp.issubdtype(given.dtype, jnp.integer):
                raise ValueError(f"given={given.dtype}{given.shape}: expected integers of shape ({len(images)}, {self.patches})")
            return given
        return patches.strongest(self.scores(logits_fn, images, labels), self.patches)

    def scores(self, logits_fn, images, labels):
        """The scores of all patches for selection "saliency" or "attention", row by row: (batch, rows * columns)."""
        rows, columns = grids.of_patch_size(images.shape, self.patch_size)
        if self.selection == "saliency":
            unit = jnp.asarray(self.std, _wide(images))
            return grids.patch_sums(optimization.saliency(logits_fn, images, labels, unit), rows, columns).reshape(len(images), -1)
        attention = optimization.logits_and_attention(self.with_attention, images)[1]
        if not -len(attention) <= self.attention_layer < len(attention):
            raise ValueError(f"attention_layer={self.attention_layer}: expected one of the {len(attention)} layers of with_attention")
        return patches.received(attention[self.attention_layer], rows, columns, self.class_tokens)

    def search(self, logits_fn, images, labels, index, start, scores):
        """(adversarial, mask, trace) from given random numbers; see `optimization.ascend`.

        Args:
            logits_fn, images, labels: see the call.
            index: (batch, patches) integers, the patches.
            start: (batch, H, W, C) in [0, 1], the initial values relative to `bounds`, or to the ball of a mild linf attack; its dtype is
                that of the computation.
            scores: (batch, H, W, 1) in [0, 1], the initial scores of the pixels; unused unless `sparse`.
        """
        dtype, (lower, upper) = images.dtype, self.bounds
        chosen, x = grids.chosen_patches(index, *grids.of_patch_size(images.shape, self.patch_size)), images.astype(start.dtype)
        inside = grids.pixel_mask(chosen, *images.shape[1:3])
        start = x + self.mild_eps * (2 * start - 1) if self.mild_norm == "linf" else lower + (upper - lower) * start
        evaluate = optimization.cross_entropy(logits_fn, labels)
        if self.mode == "attention":
            evaluate = optimization.with_paid_attention(self.with_attention, labels, index[:, 0] + self.class_tokens)

        def gradients(x):
            return optimization.gradients(lambda x: evaluate(x.astype(dtype)), x)
        scores, start = scores * inside if self.sparse else None, jnp.clip(start, lower, upper)
        found, mask, trace = optimization.ascend(self, gradients, x, inside, start, scores)
        return found.astype(dtype), mask, trace

    def _check_images(self, images):
        rows, columns = grids.of_patch_size(images.shape, self.patch_size)
        if self.patches > rows * columns:
            raise ValueError(f"patches={self.patches} on a grid of {rows} x {columns} patches: expected at most {rows * columns}")
        for name in ("mean", "std"):
            if isinstance(value := getattr(self, name), tuple) and len(value) != images.shape[-1]:
                raise ValueError(f"{name}={value} for images of {images.shape[-1]} channels: expected one number, or one per channel")

    def __post_init__(self):
        for name in ("patch_size", "patches", "steps", "decay_every", "mean_over"):
            self._set(**{name: checks.count(name, getattr(self, name))})
        for name in ("learning_rate", "decay", "attention_weight", "sparse_learning_rate"):
            self._set(**{name: checks.number(name, getattr(self, name), low=0)})
        for name, known in (("mode", MODES), ("selection", SELECTIONS), ("surgery", VERSIONS), ("sparse_gradient", VERSIONS),
                            ("mild_norm", MILD_NORMS)):
            checks.choice(name, getattr(self, name), known)
        self._set(attention_layer=checks.count("attention_layer", self.attention_layer, None),
                  class_tokens=checks.count("class_tokens", self.class_tokens, 0),
                  sparse_steps=checks.count("sparse_steps", self.sparse_steps, 0))
        self._check_sparse_and_mild()
        self._check_range()
        if self.with_attention is not None and not callable(self.with_attention):
            raise TypeError(f"with_attention={self.with_attention!r}: expected a function images -> (logits, attention)")

    def _check_sparse_and_mild(self):
        area = self.patches * self.patch_size**2
        if self.sparse is not None and checks.count("sparse", self.sparse) > area:
            raise ValueError(f"sparse={self.sparse}: expected at most {area}, {self.patches} patches of side {self.patch_size}")
        if (self.mild_norm is None) != (self.mild_eps is None):
            raise ValueError(f"mild_norm={self.mild_norm!r}, mild_eps={self.mild_eps!r}: expected both or neither")
        if self.mild_eps is not None:
            self._set(mild_eps=checks.number("mild_eps", self.mild_eps, low=0))

    def _check_range(self):
        if not isinstance(self.bounds, (tuple, list)) or len(self.bounds) != 2:
            raise TypeError(f"bounds={self.bounds!r}: expected a pair (lower, upper)")
        lower, upper = bounds = tuple(checks.number("bounds", x) for x in self.bounds)
        if not lower < upper:
            raise ValueError(f"bounds={bounds}: expected lower < upper")
        mean, std = _numbers("mean", self.mean), _numbers("std", self.std)
        if not all(x > 0 for x in (std if isinstance(std, tuple) else (std,))):
            raise ValueError(f"std={std}: expected numbers > 0")
        self._set(bounds=bounds, mean=mean, std=std)


def _wide(images):
    return jnp.promote_types(images.dtype, jnp.float32)


def _numbers(name, value):
    """A checked number, or a tuple of them."""
    return tuple(checks.number(name, x) for x in value) if isinstance(value, (tuple, list)) else checks.number(name, value)


patch_fool = PatchFool
