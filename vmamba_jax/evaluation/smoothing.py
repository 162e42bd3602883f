"""The statistics of randomized smoothing: certified l2 radius from counts of classes under Gaussian noise, and when to abstain.

With a classifier's predictions on images + N(0, sigma^2), the smoothed classifier takes the most frequent class, and no perturbation of l2
length below sigma * Phi^-1(p) changes it, where p > 1/2 bounds the class's probability from below (Cohen, Rosenfeld, Kolter 2019, theorem 1).
"""
import numpy as np
import scipy

from vmamba_jax.core import checks


def certificate(count, samples, sigma, alpha):
    """(radius, abstains): the certified l2 radius in pixel units and whether there is none, each an array of the arguments' common shape.

    The bound of the probability is Clopper and Pearson's, one-sided and exact: it is wrong with probability at most alpha. Where it is below one
    half the classifier abstains, with radius 0.

    Args:
        count: how often the class was predicted under noise, integers in [0, samples].
        samples: number of noisy predictions, integers >= 1; they must not be the ones by which the class was chosen.
        sigma: standard deviation of the noise, > 0, in pixel units.
        alpha: probability of error, in (0, 1).

    Source: Cohen, Rosenfeld, Kolter 2019, algorithm CERTIFY.
    """
    lower = lower_bound(count, samples, alpha)
    _within("sigma", sigma, above=0)
    lower, sigma = np.broadcast_arrays(lower, np.asarray(sigma, np.float64))
    abstains = lower < 0.5
    return np.where(abstains, 0.0, sigma * scipy.special.ndtri(np.where(abstains, 0.5, lower))), abstains


def lower_bound(count, samples, alpha):
    """The lower bound of a proportion at confidence 1 - alpha (Clopper & Pearson 1934, one-sided); 0 for a count of 0. As for `certificate`."""
    count, samples = _counts("count", count), _counts("samples", samples)
    if (samples < 1).any():
        raise ValueError(f"samples={int(samples[samples < 1].flat[0])}: expected at least 1")
    count, samples, alpha = np.broadcast_arrays(count, samples, _within("alpha", alpha, above=0, below=1))
    if (count > samples).any():
        i = np.unravel_index(int((count > samples).argmax()), count.shape)
        raise ValueError(f"count={count[i]}: expected at most samples={samples[i]}")
    return np.where(count > 0, scipy.special.betaincinv(np.maximum(count, 1), samples - count + 1, alpha), 0.0)


def prediction_abstains(first, second, alpha):
    """Whether the smoothed classifier abstains from its prediction, an array of bool.

    It does unless a two-sided binomial test rejects, at level alpha, that the two most frequent classes are equally probable.

    Args:
        first, second: counts of the most frequent and the second class under noise, integers >= 0, first >= second.
        alpha: probability of error, in (0, 1).

    Source: Cohen, Rosenfeld, Kolter 2019, algorithm PREDICT.
    """
    first, second = np.broadcast_arrays(_counts("first", first), _counts("second", second))
    if (first < second).any():
        i = np.unravel_index(int((first < second).argmax()), first.shape)
        raise ValueError(f"first={first[i]}: expected at least second={second[i]}")
    total = first + second
    pvalue = np.minimum(1.0, 2 * scipy.special.bdtr(second, np.maximum(total, 1), 0.5))      # symmetric: twice the lower tail
    return np.where(total > 0, pvalue, 1.0) > _within("alpha", alpha, above=0, below=1)


def _counts(name, value):
    """Integers >= 0 as an array of int64."""
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.integer):
        raise TypeError(f"{name} of dtype {value.dtype}: expected integers")
    if (value < 0).any():
        raise ValueError(f"{name}={int(value[value < 0].flat[0])}: expected an integer >= 0")
    return value.astype(np.int64)


def _within(name, value, **limits):
    """Real numbers within limits as an array of float64."""
    value = np.asarray(value, np.float64)
    for x in value.flat:
        checks.number(name, float(x), **limits)
    return value
