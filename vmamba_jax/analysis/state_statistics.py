"""Statistics of the hidden states of selective scans over depth, among them the share of the output that does not pass through a state."""
import functools

import jax.numpy as jnp
from jax.tree_util import Partial

from vmamba_jax.analysis import blocks
from vmamba_jax.core.results import Result
from vmamba_jax.core.statistics import mean_interval
from vmamba_jax.evaluation.loop import Loop, gather, on_mesh
from vmamba_jax.models.classifier import as_classifier
from vmamba_jax.models.vim.vim import Vim
from vmamba_jax.models.vmamba.vmamba import VMamba

MEASURES = ("delta", "decay", "B", "C", "skip")
FAMILIES = (VMamba, Vim)


def has_scans(model):
    """Whether `state_statistics` admits the model: a VMamba with scans and without the cascade pattern, or a Vim, in any form that it accepts."""
    try:
        blocks.mixers(blocks.check_family(as_classifier(model), FAMILIES).model)
    except (TypeError, ValueError):
        return False
    return True


def state_statistics(model, variables, source, *, mean=None, std=None, **loop) -> Result:
    """Mean size of the states of every block.

    Args:
        model: VMamba or Vim, in any form that `logits_fn` accepts.
        variables: the model's.
        source: as for `robust_accuracy`; the labels have no effect.
        mean, std: as for `logits_fn`.
        loop: batch_size, mesh, progress, as for `robust_accuracy`.

    Returns:
        Plain JSON {"examples", "blocks": [row, ...]}. A row has "block", from 0 over the network, "stage" (Vim: 0), and for each of `MEASURES`
        {"mean", "low", "high": mean over images with its 95 % interval; "n"; "directions": mean of each scan}:
            delta: step size after softplus, mean over positions and channels; decay: exp(delta A), mean over states too, in (0, 1); B, C: Euclidean
            norm over the states, mean over positions; skip: |D u| / (|D u| + |y - D u|), each the mean over positions and channels, in [0, 1]:
            the share of the output that goes around the scan through D. Its "mean", "low" and "high" are of the sum of all directions.

    Raises:
        TypeError: another model. ValueError: a VMamba without scans, or with the cascade pattern.
    """
    loop, classifier = Loop(**loop), blocks.check_family(as_classifier(model, mean, std), FAMILIES)
    places = [(0, i) for i in range(classifier.model.depth)] if isinstance(classifier.model, Vim) else [
        blocks.place(classifier.model, i) for i in range(sum(classifier.model.depths))]
    blocks.mixers(classifier.model)
    found = gather(on_mesh(_statistics, (Partial(_measured(classifier), variables),), loop), source, loop)
    rows = []
    for i, (stage, _) in enumerate(places):
        row = {"block": i, "stage": stage}
        for name in MEASURES:
            each = found[name][:, i]
            whole = found["skip_of_sum"][:, i] if name == "skip" else each.mean(1)
            row[name] = mean_interval(whole.astype(float).tolist()) | {"directions": each.mean(0).astype(float).tolist()}
        rows.append(row)
    return Result({"examples": found["examples"], "blocks": rows})


@functools.lru_cache(maxsize=64)
def _measured(classifier):
    """(variables, images) -> {name: (b, blocks, K)} and skip_of_sum (b, blocks), one function per classifier."""
    paths = blocks.mixers(classifier.model)

    def run(variables, images):
        recorded = classifier(variables, images, mutable=["intermediates"])[1]["intermediates"]
        rows = [_of_block({name: values[0] for name, values in blocks.states(recorded, path).items()}) for path in paths]
        return {name: jnp.stack([row[name] for row in rows], 1) for name in rows[0]}
    return run


def _of_block(states):
    """Statistics (b, K) of the recorded states of one block, VMamba's (b, K, H, W, ...) or Vim's (b, K, L, ...)."""
    delta, s, D = states["delta"], states["s"], states["D"]
    b, K = delta.shape[:2]
    over = lambda x: x.reshape(b, K, -1).mean(-1)
    norm = lambda x: over(jnp.sqrt((x * x).sum(-1)))
    u = states["c"] if states["c"].ndim == s.ndim else states["c"][:, None]   # VMamba: one input for all directions
    around = u * D.reshape(1, K, *(1,) * (s.ndim - 3), -1)
    share = lambda around, y: _mean_size(around) / jnp.maximum(_mean_size(around) + _mean_size(y - around), jnp.finfo(y.dtype).tiny)
    return {"delta": over(delta), "decay": over(states["A_bar"]), "B": norm(states["B"]), "C": norm(states["C"]), "skip": share(around, s),
            "skip_of_sum": share(around.sum(1, keepdims=True), s.sum(1, keepdims=True))[:, 0]}


def _mean_size(x):
    return jnp.abs(x).reshape(*x.shape[:2], -1).mean(-1)


def _statistics(tree, batch, key):
    del key
    run, = tree
    return run(batch["image"])
