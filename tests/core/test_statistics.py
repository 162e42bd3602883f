"""Confidence intervals against their equations, published values and simulations; no JAX in the module."""
import subprocess
import sys

import numpy as np
import pytest

from vmamba_jax.core import statistics

Z = 1.959963984540054


@pytest.mark.parametrize(("successes", "examples"), [(0, 360), (8, 10), (12, 360), (10, 10), (5, 10), (49_999, 50_000)])
def test_wilson_solves_its_equation(successes, examples):
    low, high = statistics.wilson_interval(successes, examples)
    p = successes / examples
    assert 0 <= low <= p <= high <= 1 and (low == 0) == (successes == 0) and (high == 1) == (successes == examples)
    for bound in (low, high):  # |p - bound| = z sqrt(bound (1 - bound) / n)
        if 0 < bound < 1:
            np.testing.assert_allclose((p - bound) ** 2, Z**2 * bound * (1 - bound) / examples, atol=1e-12)


def test_wilson_values():
    np.testing.assert_allclose(statistics.wilson_interval(8, 10), [0.4901625, 0.9433178], atol=1e-6)
    assert statistics.wilson_interval(np.int64(3), np.int64(7)) == statistics.wilson_interval(3, 7)
    assert all(type(bound) is float for bound in statistics.wilson_interval(0, 20))


@pytest.mark.parametrize(("successes", "examples"), [(3, 2), (-1, 2), (0, 0)])
def test_wilson_refuses(successes, examples):
    with pytest.raises(ValueError, match=f"successes={successes}, examples={examples}: expected"):
        statistics.wilson_interval(successes, examples)


def test_accuracy_interval_rounds_to_whole_examples():
    assert statistics.accuracy_interval(0.3, 10) == statistics.wilson_interval(3, 10)
    assert statistics.accuracy_interval(29 / 37, 37) == statistics.wilson_interval(29, 37)


def test_paired_by_hand():
    """Agresti & Min: a half in each cell, variance of the paired difference, n + 2 examples."""
    gained, lost, n = 12, 4, 100
    b, c, total = gained + 0.5, lost + 0.5, n + 2
    center, half = (b - c) / total, Z * ((b + c) - (b - c) ** 2 / total) ** 0.5 / total
    np.testing.assert_allclose(statistics.paired_interval(gained, lost, n), [center - half, center + half], atol=1e-12)


def test_paired_values():
    np.testing.assert_allclose(statistics.paired_interval(12, 4, 100), [0.0007, 0.1562], atol=1e-4)
    low, high = statistics.paired_interval(0, 0, 50)
    assert low == -high and 0 < high < 0.06


@pytest.mark.parametrize(("gained", "lost", "examples"), [(0, 0, 10), (3, 1, 20), (0, 12, 12), (40, 25, 360)])
def test_differences_agree_with_counts(gained, lost, examples):
    d = np.zeros(examples)
    d[:gained], d[gained:gained + lost] = 1, -1
    for comparisons in (1, 5):
        np.testing.assert_allclose(statistics.differences_interval(d, comparisons), statistics.paired_interval(gained, lost, examples, comparisons))
    (low, high), (lower, higher) = (statistics.paired_interval(gained, lost, examples, k) for k in (1, 5))
    assert -1 <= lower <= low <= high <= higher <= 1 and (lower, higher) != (low, high)


def test_differences_of_differences_reach_two():
    low, high = statistics.differences_interval(np.full(50, 2.0))
    assert 1.5 < low < high <= 2


def test_paired_covers():
    """The interval holds the true difference in at least 93 % of simulated studies."""
    rng, n, gain, loss = np.random.default_rng(0), 40, 0.2, 0.1
    counts = rng.multinomial(n, [gain, loss, 1 - gain - loss], 400)
    held = [low <= gain - loss <= high for g, l, _ in counts for low, high in [statistics.paired_interval(g, l, n)]]
    assert np.mean(held) > 0.93


def test_gap_interval():
    np.testing.assert_allclose(statistics.gap_interval(56, 70, 48, 80), [0.0524, 0.3339], atol=1e-4)   # Newcombe 1998, table II, method 10


def test_quantile():
    np.testing.assert_allclose([statistics.quantile(), statistics.quantile(5)], [Z, 2.5758293035489004], rtol=1e-12)


def test_slope():
    rng = np.random.default_rng(0)
    x, y = np.array([0.0, 1, 1, 2, 4]), rng.standard_normal((7, 5))
    found = statistics.slope(x, y)
    (b, a), covariance = np.polyfit(x, y.mean(0), 1, cov=True)
    np.testing.assert_allclose([found["slope"], found["intercept"], found["slope_error"]], [b, a, covariance[0, 0] ** 0.5], rtol=1e-9)
    own = [np.polyfit(x, row, 1)[0] for row in y]
    np.testing.assert_allclose(found["slope_error_images"], np.std(own, ddof=1) / 7**0.5, rtol=1e-9)
    assert statistics.slope(x[:2], y[:, :2])["slope_error"] is None and statistics.slope(x, y[:1])["slope_error_images"] is None
    assert set(statistics.slope(np.ones(5), y).values()) == {None}


def test_summary_drops_arrays():
    row = statistics.summary({"accuracy": 0.5, "correct": np.array([True, False]), "examples": 2, "note": "x"})
    assert row == {"accuracy": 0.5, "accuracy_interval": statistics.wilson_interval(1, 2), "examples": 2, "note": "x"}


def test_no_jax():
    subprocess.run([sys.executable, "-c", "import sys, vmamba_jax.core.statistics; sys.exit('jax' in sys.modules)"], check=True)


def test_rank_correlation():
    assert statistics.rank_correlation([1, 2, 3, 10], [0.1, 0.2, 5, 6]) == 1.0 and statistics.rank_correlation([1, 2, 3], [3, 2, 1]) == -1.0
    assert statistics.rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert statistics.rank_correlation([1, 1, 1], [1, 2, 3]) is None
    with pytest.raises(ValueError, match="x has 2 and y 3 values"):
        statistics.rank_correlation([1, 2], [1, 2, 3])
