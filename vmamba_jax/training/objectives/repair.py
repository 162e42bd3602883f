"""Repair of a trained state space model: cross-entropy, and penalties on states that correlate with the prediction where they should not.

Source: Hu et al., "Vision Mamba Mender", NeurIPS 2024, and the authors' program.
"""
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks, state_correlation
from vmamba_jax.models.state_gradients import probe
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.step import Cost, Outcome, Rule, Step, descend, make_step
from vmamba_jax.training.objectives.whole_batch import mean

EXTERNAL, INTERNAL = 1e7, 1e8  # weights in the released script, for gradients that carry the 1 / b of its batch


@dataclasses.dataclass(frozen=True)
class Penalty:
    """One of the two penalties of `repair`.

    Attributes:
        states, blocks: see `state_gradients.Probe`; the states' terms are added, the blocks' averaged.
        weight: factor >= 0 of the penalty; 0: no penalty.
        templates: internal only: {(state, block): (classes, K, D) of 0 and 1}, see `state_correlation.template`.
    """
    states: tuple
    blocks: tuple
    weight: float
    templates: Any = None

    def __post_init__(self):
        checks.number("weight", self.weight, low=0)
        if self.weight and not (self.states and self.blocks):
            raise ValueError(f"states={self.states}, blocks={self.blocks}: expected at least one of each with weight={self.weight:g}")


def repair(classifier, optimizer, *, external=None, internal=None, second_order=False, label_smoothing=0.1, **options):
    """A step that minimizes cross-entropy + external + internal penalty, from the weights of a trained model.

    External: correlation of states outside the foreground, summed over pixels. It needs "mask" (b, H, W) in the batch, 1 in the foreground;
    images without annotation have a mask of 1 and no penalty. Augmentation acts on image and mask alike. Internal: correlation of channels
    outside the template of the image's class, mean over channels, summed over directions. Gradients of states are those of the mean over the
    step's images of the true class's logit, over all devices and microbatches, as in the released program: they carry 1 / images.

    The step's metrics: loss, accuracy, cross_entropy, external and internal (with their weights), grad_norm, learning_rate.

    Args:
        classifier: `Classifier` of a VMamba, a Vim or another model that `state_gradients.Probe` accepts.
        optimizer: optax transformation.
        external, internal: `Penalty`, with `EXTERNAL` and `INTERNAL` as the paper's weights; None: no penalty.
        second_order: differentiate the states' gradients too. False: they are constants, as the released program's largely are.
        label_smoothing: in [0, 1), of the cross-entropy.
        **options: augment, ema_decay, ema_warmup, accumulate, see `step.Step`.

    Raises:
        ValueError: an internal penalty without templates of its states and blocks, or `mix`, as the labels must be classes.
    """
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    if options.get("mix") is not None:
        raise ValueError("mix: expected None, as a penalty needs the class of each image")
    external, internal = (penalty if penalty is not None and penalty.weight else None for penalty in (external, internal))
    if internal is not None:
        lacking = [place for place in _places(internal) if place not in (internal.templates or {})]
        if lacking:
            raise ValueError(f"internal.templates: expected an entry for {lacking[0]}, one of its states and blocks")
    templates = None if internal is None else {_name(place): np.asarray(internal.templates[place], np.float32) for place in _places(internal)}
    probes = tuple(probe(classifier, tuple(p.states), tuple(p.blocks)) for p in (external, internal) if p is not None)
    rule = Rule(gradient=descend(_Loss(classifier, external, internal, _joint(probes), second_order, label_smoothing)),
                begin=None if templates is None else lambda state, image_shape, batch_size: jax.tree.map(jnp.asarray, templates),
                update_cost=Cost(2 if probes else 1), classes=losses.number_of_classes(classifier))
    return make_step(optimizer, rule, RepairStep, **options)


def _joint(probes):
    """One probe of all states and blocks of several, so that one backward pass serves all; None without probes."""
    if not probes:
        return None
    names, blocks = (tuple(dict.fromkeys(x for each in probes for x in getattr(each, field) or ())) for field in ("names", "blocks"))
    return probe(probes[0].classifier, names, tuple(sorted(blocks)) or None)


@dataclasses.dataclass(frozen=True, eq=False)
class RepairStep(Step):
    """A `Step` whose batch has masks, augmented with the images, and each image's share of the mean score."""

    def enter(self, batch, key, axis_name):
        mask = batch.get("mask")
        if mask is not None and self.augment is not None:
            if mask.shape != batch["image"].shape[:3]:
                raise ValueError(f'batch["mask"].shape={mask.shape}: expected {batch["image"].shape[:3]}, as the images')
            plain, augment = dataclasses.replace(self, augment=None), self.augment
            both = jnp.concatenate([batch["image"], mask[..., None].astype(batch["image"].dtype)], -1)
            keys = losses.step_keys(key, len(both), axis_name)
            both = augment(both, keys.augment)
            batch = {**batch, "image": both[..., :-1], "mask": both[..., -1] > 0}
            batch, keys = Step.enter(plain, batch, key, axis_name)
        else:
            batch, keys = super().enter(batch, key, axis_name)
        n = len(batch["image"]) * (1 if axis_name is None else jax.lax.psum(1, axis_name))
        weight = batch.get("weight", jnp.ones(len(batch["image"]), jnp.float32))
        return {**batch, "share": weight / n}, keys


@dataclasses.dataclass(frozen=True, eq=False)
class _Loss:
    """`(params, state, batch, keys) -> (loss, Outcome)`."""
    classifier: Any
    external: Penalty | None
    internal: Penalty | None
    probe: Any
    second_order: bool
    label_smoothing: float

    def __call__(self, params, state, batch, keys):
        images, labels, weight = batch["image"], batch["label"], batch.get("weight")
        if labels.ndim != 1:
            raise ValueError(f'batch["label"].shape={labels.shape}: expected ({len(images)},) classes')
        if self.probe is None:
            logits, model_state = losses.train_logits(self.classifier, params, state.model_state, images, keys.dropout)
            states = {}
        else:
            logits, states, updates = self.probe({"params": params, **state.model_state}, images, labels, batch["share"], train=True,
                                                 rngs={"dropout": keys.dropout}, mutable=tuple(state.model_state))
            model_state = {**state.model_state, **updates}
        if not self.second_order:
            states = {place: s._replace(gradients=jax.lax.stop_gradient(s.gradients)) for place, s in states.items()}
        parts = {"cross_entropy": losses.cross_entropy(logits, labels, self.label_smoothing, weight)}
        if self.external is not None:
            parts["external"] = self.external.weight * mean(self._outside(states, batch, images.shape[1:3]), weight)
        if self.internal is not None:
            parts["internal"] = self.internal.weight * mean(self._unlike(states, labels, state.carry), weight)
        metrics = {"accuracy": losses.accuracy(logits, labels, weight), **parts}
        return sum(parts.values()), Outcome(model_state, metrics, state.carry)

    def _outside(self, states, batch, size):
        """External loss of every image, (b,)."""
        if "mask" not in batch:
            raise ValueError(f'batch with {", ".join(batch)}: expected "mask" (b, H, W) for the external penalty, see data.Annotated')
        total = 0
        for place in _places(self.external):
            s = states[place]
            tokens = state_correlation.external_tokens(s.values, s.gradients)
            maps = state_correlation.external_maps(tokens, s.grid, size, s.class_positions)
            total = total + state_correlation.external_loss(maps, batch["mask"].astype(maps.dtype))
        return total / len(self.external.blocks)

    def _unlike(self, states, labels, templates):
        """Internal loss of every image, (b,)."""
        total = 0
        for place in _places(self.internal):
            s = states[place]
            vectors = state_correlation.internal_vectors(s.values, s.gradients, s.class_positions)
            total = total + state_correlation.internal_loss(vectors, templates[_name(place)][labels].astype(vectors.dtype))
        return total / len(self.internal.blocks)


def _places(penalty):
    """(state, block) of every term."""
    return [(state, block) for block in penalty.blocks for state in penalty.states]


def _name(place):
    return f"{place[0]}@{place[1]}"
