"""Correlation maps and vectors of a set's samples: one backward pass per batch, over all devices, compiled once per model."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vmamba_jax.core import checks, state_correlation
from vmamba_jax.core.results import Record
from vmamba_jax.evaluation.loop import Loop, gather, on_mesh, over_set
from vmamba_jax.evaluation.sets import enter
from vmamba_jax.models.classifier import as_classifier, logits_fn
from vmamba_jax.models.state_gradients import Probe, monitored, probe


@dataclasses.dataclass(frozen=True)
class Measurement(Record):
    """What `measure` found, for n samples.

    Attributes:
        positions: (n,) in the source, ascending.
        labels: (n,).
        probabilities: (n,) of the true class.
        places: (state, block) of every row below.
        tokens: {place: (n, rows, columns)} external correlation, without class tokens.
        regions: {place: (n, H, W) bool} pixels whose map, scaled to [0, 1], exceeds alpha.
        keep, drop: {place: (n,)} probability of the true class on the region's pixels alone, and on the others alone.
        vectors: {place: (n, K, D)} internal correlation, a vector for each direction.
    """
    positions: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    places: tuple
    tokens: dict
    regions: dict
    keep: dict
    drop: dict
    vectors: dict


def true_probabilities(model, variables, source, **loop):
    """Probability of the true class of every image of a set, (n,), and the labels, (n,); arguments as for `measure`."""
    loop, fn = Loop(**loop), logits_fn(model, variables)
    found = gather(on_mesh(_true_probability, (fn,), loop), enter(fn, source, loop), loop)
    return found["probability"], found["label"]


def measure(model, variables, source, which=None, *, states=None, blocks=None, alpha=state_correlation.ALPHA, score="logit", **loop):
    """Correlation of the chosen states with the true class for the chosen images.

    Gradients are those of each image's own score, so that no result depends on the batch. Masked pixels have the value that the model's
    preprocessing maps to 0, the mean color.

    Args:
        model, variables: as for `logits_fn`; a VMamba, a Vim, or a model that `state_gradients.Probe` accepts.
        source: as for `robust_accuracy`.
        which: positions in the source; None: all.
        states, blocks, score: see `state_gradients.Probe`; states None: x, z, c, s and y as far as a VMamba or Vim has them.
        alpha: threshold in [0, 1) of the scaled maps.
        loop: batch_size, mesh, progress, as for `robust_accuracy`.

    Returns:
        `Measurement`.
    """
    checks.number("alpha", alpha, low=0, below=1)
    loop, classifier = Loop(**loop), as_classifier(model)
    states = monitored(classifier.model) if states is None else tuple(states)
    at = probe(classifier, states, None if blocks is None else tuple(blocks), score)
    entered = enter(logits_fn(classifier, variables), source, loop)
    which = np.arange(entered.examples) if which is None else np.unique(np.asarray(which, int))
    run = on_mesh(_measure, (Partial(_measured(at), variables), jnp.float32(alpha)), loop)
    rows, seen = {}, set()
    for index, outputs in over_set(run, entered, loop, which):
        fresh = np.array([i not in seen and not seen.add(i) for i in index.tolist()])  # padding repeats the last image
        jax.tree.map_with_path(lambda path, x, fresh=fresh: rows.setdefault(jax.tree_util.keystr(path), []).append(x[fresh]), outputs)
        if loop.progress:
            loop.progress(len(seen), len(which), {})
    joined = jax.tree.map_with_path(lambda path, _: np.concatenate(rows[jax.tree_util.keystr(path)]), outputs)
    places = tuple(_place(name) for name in joined["vectors"])
    by_place = lambda name: {_place(key): x for key, x in joined[name].items()}
    stacked = lambda name: {place: joined[name][:, i] for i, place in enumerate(_place(key) for key in joined["tokens"])}
    return Measurement(which, joined["label"], joined["probability"], places, by_place("tokens"), stacked("regions"), stacked("keep"), stacked("drop"),
                       by_place("vectors"))


def _place(key):
    name, _, block = key.partition("@")
    return name, int(block) if block.isdigit() else block


@functools.lru_cache(maxsize=64)
def _measured(at: Probe):
    """(variables, batch, alpha) -> outputs of `_measure`, one function per probe."""
    def run(variables, images, labels, alpha):
        logits, states, _ = at(variables, images, labels)
        score = lambda logits: jnp.take_along_axis(jax.nn.softmax(logits), labels[:, None], 1)[:, 0]
        tokens, vectors, maps = {}, {}, []
        for (name, block), s in states.items():
            key = f"{name}@{block}"
            vectors[key] = state_correlation.internal_vectors(s.values, s.gradients, s.class_positions)
            if s.grid is None:
                continue
            found = state_correlation.external_tokens(s.values, s.gradients)
            tokens[key] = state_correlation.external_maps(found, s.grid, s.grid, s.class_positions)
            maps.append(state_correlation.external_maps(found, s.grid, images.shape[1:3], s.class_positions))
        regions = jnp.stack([state_correlation.normalized(each) > alpha for each in maps])
        mean = jnp.asarray(at.classifier.mean, images.dtype)
        seen = lambda region: at.classifier(variables, jnp.where(region[..., None], images, mean))
        keep, drop = jax.lax.map(lambda region: (score(seen(region)), score(seen(~region))), regions)
        return {"probability": score(logits), "label": labels, "tokens": tokens, "vectors": vectors, "regions": regions.swapaxes(0, 1),
                "keep": keep.T, "drop": drop.T}

    return run


def _measure(tree, batch, key):
    del key
    run, alpha = tree
    return run(batch["image"], batch["label"], alpha)


def _true_probability(tree, batch, key):
    del key
    logits_fn, = tree
    return {"probability": jnp.take_along_axis(jax.nn.softmax(logits_fn(batch["image"])), batch["label"][:, None], 1)[:, 0], "label": batch["label"]}
