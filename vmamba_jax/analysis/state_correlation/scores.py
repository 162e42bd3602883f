"""Scores of correlation maps and vectors, and the samples they are compared on, with NumPy alone."""
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.state_correlation import BETA, EPS


def extremes(probabilities, labels, per_class, classes=None):
    """Positions of the simple and of the difficult samples: highest and lowest probability of the true class, of every class.

    Args:
        probabilities: (n,) of the true class.
        labels: (n,) integers.
        per_class: samples of each kind and class, at most half of the class's samples.
        classes: number of classes; None: the highest label + 1.

    Returns:
        {"simple", "difficult"}: ascending positions, disjoint. Ties go to the earlier position.

    Raises:
        ValueError: a class with fewer than 2 per_class samples, in which both kinds would overlap.
    """
    count, labels = checks.count("per_class", per_class), np.asarray(labels)
    found = {"simple": [], "difficult": []}
    for k in range(int(labels.max()) + 1 if classes is None else classes):
        of_class = np.flatnonzero(labels == k)
        if len(of_class) < 2 * count:
            raise ValueError(f"per_class={count}: expected at most {len(of_class) // 2}, half of the {len(of_class)} samples of class {k}")
        order = of_class[np.argsort(-np.asarray(probabilities, float)[of_class], kind="stable")]
        found["simple"].append(order[:count])
        found["difficult"].append(order[-count:])
    return {name: np.sort(np.concatenate(parts)) for name, parts in found.items()}


def overlap(regions, masks):
    """Intersection over union of each image's region with its foreground, (n,), with 1e-5 added to both counts.

    Args:
        regions: (n, H, W) bool, pixels whose scaled correlation exceeds alpha.
        masks: (n, H, W) bool.
    """
    regions, masks = np.asarray(regions, bool), np.asarray(masks, bool)
    if regions.shape != masks.shape:
        raise ValueError(f"masks.shape={masks.shape}: expected {regions.shape}, as the regions")
    return ((regions & masks).sum((1, 2)) + EPS) / ((regions | masks).sum((1, 2)) + EPS)


def external_score(keep, drop, overlaps):
    """External correlation score (definition 1) of a set of samples.

    Args:
        keep, drop: (n,) probability of the true class on the correlated pixels alone, and on the others alone.
        overlaps: (n,) of `overlap`.

    Returns:
        {"score": mean keep / mean drop * mean overlap, as released; "per_sample": mean over samples of keep / drop * overlap; "keep", "drop",
        "overlap": the means}, with 1e-5 added to both sides of each ratio.
    """
    keep, drop, overlaps = (np.asarray(x, float) for x in (keep, drop, overlaps))
    means = {"keep": float(keep.mean()), "drop": float(drop.mean()), "overlap": float(overlaps.mean())}
    return {"score": (means["keep"] + EPS) / (means["drop"] + EPS) * means["overlap"],
            "per_sample": float(((keep + EPS) / (drop + EPS) * overlaps).mean()), **means}


def internal_score(vectors, beta=BETA):
    """Internal correlation score (definition 2) of the samples of one class.

    Args:
        vectors: (samples, ..., D), not scaled.
        beta: threshold in [0, 1) of the vectors scaled to [0, 1).

    Returns:
        {"score": homogeneity / density, as released; "product": density * homogeneity, as the poster has it; "density", "homogeneity"}, arrays
        of shape (...). A sparser, more uniform correlation scores higher.
    """
    checks.number("beta", beta, low=0, below=1)
    v = np.asarray(vectors, float)
    low, high = v.min(-1, keepdims=True), v.max(-1, keepdims=True)
    active = (v - low) / (high - low + EPS) > beta
    share = active.mean(0)
    density = share.mean(-1)
    homogeneity = share.sum(-1) / (active.any(0) + EPS).sum(-1)
    return {"score": homogeneity / (density + EPS), "product": density * homogeneity, "density": density, "homogeneity": homogeneity}
