"""Calibration: how far a classifier's confidence is from its accuracy."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.closures import argument
from vmamba_jax.core.results import Result
from vmamba_jax.core.statistics import summary
from vmamba_jax.evaluation.loop import FINITE, Loop, gather, judge, on_mesh
from vmamba_jax.evaluation.sets import enter


def calibration_error(logits_fn, source, *, bins=15, **loop) -> Result:
    """Expected calibration error over a set. Images with non-finite logits count as misclassified with confidence 1.

    Args:
        bins: number of bins of confidence, >= 1.
        logits_fn, source, loop: as for `robust_accuracy`.

    Returns:
        The row of `summary` for the accuracy, with "confidence" (the mean), "ece" (bins of equal width), "adaptive_ece" (bins of equally
        many images), "bins", `reliability` in equal widths, and "not_finite" as for `robust_accuracy`; plain JSON.
    """
    loop, bins = Loop(**loop), checks.count("bins", bins)
    result = gather(on_mesh(_confidence, (argument(logits_fn),), loop), enter(logits_fn, source, loop), loop)
    confidence, correct = (result.pop(name) for name in ("confidence", "correct"))
    equal, adaptive = (reliability(confidence, correct, bins, adaptive) for adaptive in (False, True))
    return Result(summary(result) | {"confidence": float(confidence.mean(dtype=float)), "ece": expected_error(equal),
                                     "adaptive_ece": expected_error(adaptive), "bins": equal})


def reliability(confidence, correct, bins=15, adaptive=False):
    """Bins of a reliability diagram: [{"low", "high", "examples", "confidence", "accuracy"}], the last two None for an empty bin.

    Args:
        confidence: (n,) highest probabilities in [0, 1].
        correct: (n,) bool.
        bins: number of bins, >= 1.
        adaptive: bins of equally many images (to within one), in order of confidence; "low" and "high" are then the lowest and highest
            confidence in the bin, and there are at most n bins. False: bins (low, high] of equal width; the first includes 0.

    Source: Guo et al. 2017, arXiv 1706.04599, section 2; adaptive: Nixon et al. 2019, arXiv 1904.01685.
    """
    checks.count("bins", bins)
    confidence, correct = np.asarray(confidence, float), np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ValueError(f"confidence has shape {confidence.shape}, correct {correct.shape}: expected (n,) for both, n >= 1")
    if not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-6):
        raise ValueError(f"confidence ranges over [{confidence.min():g}, {confidence.max():g}]: expected probabilities")
    if adaptive:
        groups = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(confidence)))
        edges = [(confidence[group].min(), confidence[group].max()) for group in groups]
    else:
        ends = np.linspace(0, 1, bins + 1)
        number = np.clip(np.searchsorted(ends, confidence, side="left") - 1, 0, bins - 1)
        groups = [np.flatnonzero(number == k) for k in range(bins)]
        edges = list(zip(ends, ends[1:], strict=False))
    mean = lambda values: float(values.mean()) if len(values) else None
    return [{"low": float(low), "high": float(high), "examples": len(group), "confidence": mean(confidence[group]),
             "accuracy": mean(correct[group])} for (low, high), group in zip(edges, groups, strict=True)]


def expected_error(bins):
    """Mean over images of |accuracy - confidence| of their bin, from `reliability`."""
    filled = [each for each in bins if each["examples"]]
    total = sum(each["examples"] for each in filled)
    return sum(each["examples"] * abs(each["accuracy"] - each["confidence"]) for each in filled) / total


def _confidence(tree, batch, key):
    del key
    logits_fn, = tree
    logits = logits_fn(batch["image"])
    highest = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32))).max(-1)
    found = judge(logits, batch["label"])
    return found | {"confidence": jnp.where(found[FINITE], highest, 1)}
