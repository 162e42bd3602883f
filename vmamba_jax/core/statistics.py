"""Confidence intervals of accuracies and of their differences, with NumPy and SciPy alone (`reports` must load without JAX)."""
import functools
import math

import numpy as np
import scipy  # its submodules load on first use: `scipy.stats` takes about a second

from vmamba_jax.core.results import Result

CONFIDENCE = 0.95


@functools.lru_cache(maxsize=4096)
def _wilson(successes, examples):
    found = scipy.stats.binomtest(successes, examples).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def wilson_interval(successes, examples):
    """95 % confidence interval [low, high] of a proportion.

    Args:
        successes: integer in [0, examples].
        examples: integer >= 1.

    Source: Wilson 1927 (score interval), as in `scipy.stats.binomtest`.
    """
    if examples < 1 or not 0 <= successes <= examples:
        raise ValueError(f"successes={successes}, examples={examples}: expected 0 <= successes <= examples, examples >= 1")
    return list(_wilson(int(successes), int(examples)))


def accuracy_interval(accuracy, examples):
    """95 % Wilson interval [low, high] of an accuracy in [0, 1] measured on `examples` examples."""
    return wilson_interval(round(accuracy * examples), examples)


def paired_interval(gained, lost, examples, comparisons=1):
    """95 % confidence interval [low, high] of (gained - lost) / examples, the difference of two accuracies on the same examples.

    Args:
        gained, lost: number of examples that only the first, only the second classifies correctly.
        examples: number of examples, >= 1.
        comparisons: number of intervals that hold jointly at 95 % (Bonferroni).

    Source: Agresti & Min 2005: half an example is added to each of the four cells.
    """
    return _agresti_min(gained - lost, gained + lost, examples, 1.0, comparisons)


def differences_interval(differences, comparisons=1):
    """`paired_interval` of the mean of per-example differences (n,) in {-1, 0, 1}, or of differences of two of these."""
    d = np.asarray(differences, float)
    return _agresti_min(float(d.sum()), float((d * d).sum()), d.size, float(np.abs(d).max(initial=1.0)), comparisons)


def _agresti_min(total, squares, examples, limit, comparisons):
    n = examples + 2
    half = quantile(comparisons) * math.sqrt(squares + 1 - total**2 / n) / n
    return [max(-limit, total / n - half), min(limit, total / n + half)]


def quantile(comparisons=1):
    """Two-sided quantile of the standard normal distribution for intervals that hold jointly at 95 % (Bonferroni): 1.96 for one."""
    return float(scipy.stats.norm.ppf(1 - (1 - CONFIDENCE) / (2 * comparisons)))


def gap_interval(successes, examples, other_successes, other_examples):
    """95 % confidence interval [low, high] of successes / examples - other_successes / other_examples, two independent proportions.

    Source: Newcombe 1998, method 10.
    """
    p, (p_low, p_high) = successes / examples, wilson_interval(successes, examples)
    q, (q_low, q_high) = other_successes / other_examples, wilson_interval(other_successes, other_examples)
    return [p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)]


def mean_interval(values):
    """Mean of a few values, one for each seed, with its 95 % confidence interval.

    Args:
        values: (n,) floats, n >= 1; for paired groups, the differences.

    Returns:
        {"n", "mean", "sd", "low", "high"}: sd is the sample standard deviation, (low, high) Student's t interval of the mean. All three are
        None for one value.
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"values={values}: expected a sequence of at least one number")
    found = {"n": x.size, "mean": float(x.mean()), "sd": None, "low": None, "high": None}
    if x.size == 1:
        return found
    sd = float(x.std(ddof=1))
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, x.size - 1)) * sd / math.sqrt(x.size)
    return found | {"sd": sd, "low": found["mean"] - half, "high": found["mean"] + half}


def slope(x, y):
    """Least-squares line through the mean over examples of y, with two standard errors of its slope.

    Args:
        x: (positions,) floats.
        y: (n, positions): one row per example.

    Returns:
        {"slope", "intercept", "slope_error", "slope_error_images"}, floats. "slope_error" comes from the residuals of the line; None for
        fewer than three positions. "slope_error_images" is the standard error of the mean of the examples' own slopes; None for one
        example. All are None if x is constant.
    """
    if np.ptp(x) == 0:
        return {"slope": None, "intercept": None, "slope_error": None, "slope_error_images": None}
    line = scipy.stats.linregress(x, y.mean(0))
    slopes = np.polyfit(x, y.T, 1)[0]
    return {"slope": float(line.slope), "intercept": float(line.intercept), "slope_error": float(line.stderr) if len(x) > 2 else None,
            "slope_error_images": float(slopes.std(ddof=1)) / math.sqrt(len(y)) if len(y) > 1 else None}


def rank_correlation(x, y):
    """Spearman's rank correlation of two sequences of n >= 2 numbers, in [-1, 1]; None if one of them is constant, as it is undefined then."""
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"x has {len(x)} and y {len(y)} values: expected the same number, at least 2")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(scipy.stats.spearmanr(x, y).statistic)


def summary(result) -> Result:
    """The entries of a result of `accuracy` or `robust_accuracy` that are no arrays, with a 95 % "_interval" per accuracy; plain JSON."""
    row = {}
    for name, value in result.items():
        if isinstance(value, np.ndarray):
            continue
        row[name] = value
        if name in ("accuracy", "robust_accuracy"):
            row[f"{name}_interval"] = accuracy_interval(value, result["examples"])
    return Result(row)
