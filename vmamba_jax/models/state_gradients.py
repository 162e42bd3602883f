"""Chosen hidden states of a classifier and the gradients of the true class's score with respect to them, in one backward pass."""
import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.vim.vim import Vim, class_positions, raster_order
from vmamba_jax.models.vmamba.vmamba import VMamba

SCORES = ("logit", "probability")
NAMES = ("x", "z", "c", "s", "y")  # states of a Mamba block that the paper monitors; its h is y


class State(NamedTuple):
    """One state of one block.

    Attributes:
        values, gradients: (b, K, L, D): scan directions (1 for a state without), tokens in raster order with the class tokens at their
            positions, channels.
        grid: rows and columns of the tokens without the class tokens; None: not known.
        class_positions: positions of the class tokens among the L.
    """
    values: jax.Array
    gradients: jax.Array
    grid: tuple | None
    class_positions: tuple


@dataclasses.dataclass(frozen=True)
class Probe:
    """Which states of which blocks of a model.

    Attributes:
        classifier: a `Classifier`.
        names: states: of `probes.SS2D_STATES` for a VMamba, of `probes.VIM_STATES` for a Vim, and for another model the names that it gives
            to both `self.perturb(name, x)` and `self.sow("intermediates", name, x)`, x of shape (b, L, D) or (b, H, W, D).
        blocks: block numbers over the whole network, from 0; for another model paths of modules such as "encoder/block_1"; None: all.
        score: "logit", as in the released program, or "probability" (the paper's text).

    Raises:
        ValueError: unknown names or blocks.
    """
    classifier: Callable
    names: tuple
    blocks: tuple | None = None
    score: str = "logit"

    def __post_init__(self):
        checks.choice("score", self.score, SCORES)
        known = {VMamba: probes.SS2D_STATES, Vim: probes.VIM_STATES}.get(type(self.classifier.model))
        if isinstance(self.names, str) or not self.names:
            raise ValueError(f"names={self.names!r}: expected a tuple of names of states")
        object.__setattr__(self, "names", tuple(self.names))
        if known is not None:
            probes.check_names("names", self.names, known)
            refused = [name for name in self.names if name not in NAMES]
            if refused:
                raise ValueError(f"names={self.names}: expected names among {', '.join(NAMES)}, whose last axis is the channels")
            absent = [name for name in self.names if name not in monitored(self.classifier.model)]
            if absent:
                raise ValueError(f"names={self.names}: expected names among {', '.join(monitored(self.classifier.model))}, those that this model has")
            count = sum(self.classifier.model.depths)
            blocks = tuple(range(count)) if self.blocks is None else tuple(self.blocks)
            for block in blocks:
                if isinstance(block, bool) or not isinstance(block, int | np.integer) or not 0 <= block < count:
                    raise ValueError(f"blocks={self.blocks!r}: expected numbers of the model's {count} blocks, from 0")
            object.__setattr__(self, "blocks", tuple(int(block) for block in blocks))
        elif self.blocks is not None:
            object.__setattr__(self, "blocks", tuple(self.blocks))

    def __call__(self, variables, images, labels, shares=None, *, train=False, rngs=None, mutable=()):
        """The states, and the gradients of the sum over images of share times score.

        Args:
            variables: the model's.
            images: (b, H, W, channels) in [0, 1].
            labels: (b,) integer classes.
            shares: (b,) factor of each image's score; None: 1, so that no gradient depends on the batch. The released program has 1 / b.
            train, rngs: as for `Classifier`.
            mutable: collections to return updated.

        Returns:
            (logits, {(name, block): `State`}, updated collections). Differentiable in the variables, to the second order.
        """
        run = dataclasses.replace(self.classifier, model=self._perturbed())
        empty = jax.eval_shape(lambda v, x: self._perturbations(run, v, x), variables, images)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), empty)
        collection = "states" if hasattr(run.model, "perturbed") else "intermediates"

        def forward(perturbations):
            return run({**variables, "perturbations": perturbations}, images, train=train, rngs=rngs, mutable=[collection, *mutable])

        logits, pullback, updates = jax.vjp(forward, zeros, has_aux=True)
        gradients, = pullback(self._cotangent(logits, labels, shares))
        recorded = updates.pop(collection, {})
        found = {}
        for (name, block), gradient in self._chosen(gradients).items():
            value = self._leaf(recorded, name, block)
            found[name, block] = _state(self.classifier.model, name, value, gradient, images.shape)
        return logits, found, updates

    def _perturbed(self):
        model = self.classifier.model
        if not isinstance(model, (VMamba, Vim)):
            return model
        return model.clone(perturbed=self.names, perturbed_blocks=tuple(_entry(model, block) for block in self.blocks))

    def _perturbations(self, run, variables, images):
        """Zeros of every perturbation of the model, by path."""
        tree = run(variables, images, mutable=["perturbations"])[1].get("perturbations", {})
        if not tree:
            raise ValueError(f"names={self.names}: {type(run.model).__name__} perturbs no state: expected self.perturb(name, x) in the model")
        return tree

    def _cotangent(self, logits, labels, shares):
        hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        if self.score == "probability":
            p = jax.nn.softmax(logits)
            hot = (p * hot).sum(-1, keepdims=True) * (hot - p)
        return hot if shares is None else hot * shares[:, None].astype(logits.dtype)

    def _chosen(self, gradients):
        """{(name, block): gradient} of the chosen states, block by block."""
        model = self.classifier.model
        if isinstance(model, (VMamba, Vim)):
            return {(name, block): self._leaf(gradients, name, block) for block in self.blocks for name in self.names}
        flat = {}
        for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]:
            *block, name = (entry.key for entry in path)
            flat[name, "/".join(block)] = leaf
        blocks = self.blocks if self.blocks is not None else tuple(dict.fromkeys(block for name, block in flat if name in self.names))
        missing = [name for name in self.names if name not in {name for name, _ in flat}]
        if missing or not set(blocks) <= {block for _, block in flat}:
            known = ", ".join(f"{block}/{name}".lstrip("/") for name, block in flat)
            raise ValueError(f"names={self.names}, blocks={self.blocks}: expected states that the model perturbs: {known}")
        return {(name, block): flat[name, block] for block in blocks for name in self.names if (name, block) in flat}

    def _leaf(self, tree, name, block):
        model = self.classifier.model
        path = _path(model, block) if isinstance(model, (VMamba, Vim)) else tuple(filter(None, block.split("/")))
        node = functools.reduce(lambda node, part: node.get(part, {}), path, tree)
        if name not in node:
            raise ValueError(f"names={self.names}: the model perturbs {name!r} in {'/'.join(path) or 'its root'} but does not sow it: expected "
                             f'self.sow("intermediates", {name!r}, x) too')
        return node[name][0] if isinstance(node[name], tuple) else node[name]


def monitored(model):
    """Names of the states that a VMamba or Vim has: z only with a gate, none without a mixer. ValueError for another model, whose names it cannot know."""
    if isinstance(model, Vim):
        return NAMES
    if not isinstance(model, VMamba):
        raise ValueError(f"states=None with {type(model).__name__}: expected the names of its states")
    if model.ssm_ratio <= 0:
        return ()
    return NAMES if model.gate else tuple(name for name in NAMES if name != "z")


@functools.lru_cache(maxsize=64)
def probe(classifier, names, blocks=None, score="logit"):
    """The `Probe` of hashable arguments, the same object for equal ones, so that programs compiled for it are found again."""
    return Probe(classifier, names, blocks, score)


def _entry(model, block):
    """Entry of `perturbed_blocks` for a block number."""
    for stage, depth in enumerate(model.depths):
        if block < depth:
            return (stage, block)
        block -= depth
    raise AssertionError("checked before")


def _path(model, block):
    stage, within = _entry(model, block)
    return (f"layers_{stage}", "mixer") if isinstance(model, Vim) else (f"layers_{stage}", f"blocks_{within}", "op")


def _state(model, name, value, gradient, shape):
    """`State` with the axes (b, K, L, D) and raster order, from one state as the model has it."""
    if isinstance(model, Vim):
        grid = tuple((side - model.patch_size) // model.stride + 1 for side in shape[1:3])
        positions = class_positions(model.class_token, grid[0] * grid[1])
        order = raster_order(model, *grid)
        raster = lambda x: (x[:, None] if x.ndim == 3 else x)[:, :, order]
        return State(raster(value), raster(gradient), grid, positions)
    if isinstance(model, VMamba) or value.ndim == 4:
        wide = lambda x: x if x.ndim == 5 else x[:, None]  # (b, K, H, W, D)
        flat = lambda x: x.reshape(*x.shape[:2], -1, x.shape[-1])
        return State(flat(wide(value)), flat(wide(gradient)), tuple(wide(value).shape[2:4]), ())
    if value.ndim != 3:
        raise ValueError(f"state {name!r} of shape {value.shape}: expected (b, L, D) or (b, H, W, D)")
    side = int(np.sqrt(value.shape[1]))
    return State(value[:, None], gradient[:, None], (side, side) if side * side == value.shape[1] else None, ())
