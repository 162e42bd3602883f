"""The locator: scores of every state and block on two groups of samples, a ranking of flaws, and the templates that repair needs."""
import math

import numpy as np

from vmamba_jax.analysis.state_correlation import scores
from vmamba_jax.analysis.state_correlation.measure import measure, true_probabilities
from vmamba_jax.core import checks, state_correlation
from vmamba_jax.core.results import Result, Rows
from vmamba_jax.core.state_correlation import ALPHA, BETA

KINDS = ("external", "internal")


def locate(model, variables, source, *, masks=None, per_class=10, groups=None, alpha=ALPHA, beta=BETA, **options) -> Result:
    """Scores of every state and block on simple and on difficult samples.

    Args:
        model, variables, source: as for `measure`.
        masks: (n, H, W) bool, the foreground of every image of the source; None: those of the source, if it has any. Without masks there are
            no external scores.
        per_class: simple and difficult samples per class, those with the highest and lowest probability of the true class; the released
            program's default is 10.
        groups: {name: positions} of two groups to compare in place of simple and difficult samples, such as clean and attacked ones.
        alpha, beta: thresholds of maps and vectors.
        options: states, blocks, score and the loop's, as for `measure`.

    Returns:
        Plain JSON: {"alpha", "beta", "groups": {name: positions}, "classes", "rows"}. A row has "state", "block" and, for each group by name,
        {"external": of `external_score` with "coverage" (share of pixels in the region), or None without masks; "internal": of
        `internal_score`, means over classes and directions, with "by_class" and "by_direction" (scores)}.

    Raises:
        ValueError: masks that do not fit the images, or other than two groups.
    """
    masks = getattr(source, "masks", None) if masks is None else np.asarray(masks)
    if groups is None:
        loop = {name: value for name, value in options.items() if name in ("batch_size", "mesh")}
        probabilities, labels = true_probabilities(model, variables, source, **loop)
        groups = scores.extremes(probabilities, labels, per_class)
    if len(groups) != 2:
        raise ValueError(f"groups={list(groups)}: expected two")
    found = measure(model, variables, source, np.concatenate(list(groups.values())), alpha=alpha, **options)
    if masks is not None and (masks.ndim != 3 or masks.dtype != bool or len(masks) <= found.positions[-1]):
        raise ValueError(f"masks of shape {masks.shape} and {masks.dtype}: expected (n, H, W) bool, one for each image of the source")
    rows = []
    for place in found.places:
        row = {"state": place[0], "block": place[1]}
        for name, positions in groups.items():
            at = np.searchsorted(found.positions, np.sort(positions))
            external = None
            if masks is not None and place in found.regions:
                region = found.regions[place][at]
                external = {**scores.external_score(found.keep[place][at], found.drop[place][at], scores.overlap(region, masks[found.positions[at]])),
                            "coverage": float(region.mean())}
            row[name] = {"external": external, "internal": _internal(found.vectors[place][at], found.labels[at], beta)}
        rows.append(row)
    return Result({"alpha": alpha, "beta": beta, "groups": {name: np.sort(positions).tolist() for name, positions in groups.items()},
                   "classes": int(found.labels.max()) + 1, "rows": rows})


def ranking(report, kind="external", depth=1.0) -> Rows:
    """States and blocks of a report of `locate`, the largest flaw first.

    A flaw is how much worse the second group scores: log(first / second) of the external scores, first - second of the internal ones.

    Args:
        report: of `locate`.
        kind: "external" or "internal".
        depth: fraction in (0, 1] of the blocks, the deepest ones, that are ranked; the paper repairs the deepest.

    Returns:
        [{"state", "block", "flaw"}, ...]; states without a score are left out.
    """
    checks.choice("kind", kind, KINDS), checks.number("depth", depth, above=0, high=1)
    first, second = report["groups"]
    blocks = list(dict.fromkeys(row["block"] for row in report["rows"]))
    deepest = blocks[len(blocks) - max(1, round(depth * len(blocks))):]
    found = []
    for row in report["rows"]:
        pair = [row[name][kind] for name in (first, second)]
        if row["block"] in deepest and None not in pair:
            a, b = (each["score"] for each in pair)
            found.append({"state": row["state"], "block": row["block"], "flaw": math.log(max(a, 1e-12) / max(b, 1e-12)) if kind == "external" else a - b})
    return Rows(sorted(found, key=lambda each: -each["flaw"]))


def templates(model, variables, source, *, states, blocks, per_class=10, beta=BETA, **options):
    """Templates of every class: the channels that correlate with it on the samples of highest confidence.

    Args:
        model, variables, source, options: as for `measure`.
        states, blocks: of the internal penalty.
        per_class: samples of highest probability of the true class, per class.
        beta: threshold.

    Returns:
        {(state, block): (classes, K, D) of 0 and 1}, for `training.objectives.Penalty`.
    """
    loop = {name: value for name, value in options.items() if name in ("batch_size", "mesh")}
    simple = scores.extremes(*true_probabilities(model, variables, source, **loop), per_class)["simple"]
    found = measure(model, variables, source, simple, states=states, blocks=blocks, **options)
    return {place: np.stack([np.asarray(state_correlation.template(found.vectors[place][found.labels == k], beta))
                             for k in range(int(found.labels.max()) + 1)]) for place in found.places}


def _internal(vectors, labels, beta):
    """Means over classes and directions of `internal_score`, with the scores of each class and of each direction."""
    classes = [scores.internal_score(vectors[labels == k], beta) for k in np.unique(labels)]
    means = {name: float(np.mean([each[name] for each in classes])) for name in ("score", "product", "density", "homogeneity")}
    return means | {"by_class": [float(each["score"].mean()) for each in classes],
                    "by_direction": np.mean([each["score"] for each in classes], axis=0).tolist()}
