"""AttackBench's optimality: distances, areas, and the scores of attacks as good as the best, as none, and between."""
import numpy as np
import pytest

from vmamba_jax.evaluation import optimality

RADII = (0.1, 0.2, 0.4)


def test_distances():
    """The smallest successful radius; 0 for an image misclassified anyway, whatever its bits; inf if none succeeded."""
    broken = [[0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]
    np.testing.assert_array_equal(optimality.distances(broken, RADII, [True, True, True, False]), [0.2, 0.4, np.inf, 0.0])
    with pytest.raises(ValueError, match=r"broken.shape=\(2, 4\): expected \(3, 4\)"):
        optimality.distances(broken[:2], RADII, [True] * 4)
    with pytest.raises(ValueError, match=r"radii=\[0.2, 0.1, 0.4\]: expected ascending"):
        optimality.distances(broken, (0.2, 0.1, 0.4), [True] * 4)


def test_area_is_that_of_the_curve():
    """The mean of the clipped distances is the integral of the robust accuracy, a sum over a fine grid."""
    distance = np.array([0.0, 0.1, 0.2, 0.2, np.inf])
    grid = (np.arange(4000) + 0.5) / 10_000
    accuracy = (distance > grid[:, None]).mean(1)
    assert optimality.area(distance, 0.4) == pytest.approx(accuracy.sum() / 10_000, abs=1e-4)


def test_scores():
    best = np.array([0.0, 0.1, 0.2, 0.2])
    assert optimality.local_optimality(best, best, 0.4) == 1.0
    assert optimality.local_optimality([0, np.inf, np.inf, np.inf], best, 0.4) == pytest.approx(0.0)
    room = 0.75 * 0.4 - 0.5 / 4  # one image misclassified anyway; area of the best distances
    assert optimality.local_optimality([0, 0.2, 0.2, 0.4], best, 0.4) == pytest.approx(1 - (0.3 / 4) / room)
    assert optimality.local_optimality([0, np.inf], [0, np.inf], 0.4) == 1.0
    assert optimality.global_optimality([1.0, 0.5]) == 0.75
    with pytest.raises(ValueError, match="best: expected at most the attack's distance"):
        optimality.local_optimality([0.1, 0.1, 0.1, 0.1], best, 0.4)
