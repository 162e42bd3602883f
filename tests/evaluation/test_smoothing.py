"""Certificates of randomized smoothing against SciPy's and statsmodels' exact intervals and tests."""
import numpy as np
import pytest

from vmamba_jax.evaluation import smoothing


def test_certificates(golden):
    x = golden("smoothing")
    radius, abstains = smoothing.certificate(x["count"], x["samples"], x["sigma"], x["alpha"])
    np.testing.assert_allclose(smoothing.lower_bound(x["count"], x["samples"], x["alpha"]), x["lower"], rtol=1e-11)
    np.testing.assert_array_equal(abstains, x["abstain"])
    np.testing.assert_allclose(radius, x["radius"], rtol=1e-10, atol=1e-13)
    one = smoothing.certificate(int(x["count"][5]), int(x["samples"][5]), float(x["sigma"][5]), float(x["alpha"][5]))
    assert one[0].shape == () and one[0] == radius[5] and one[1] == abstains[5]


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_prediction(golden, alpha):
    x = golden("smoothing")
    np.testing.assert_array_equal(smoothing.prediction_abstains(x["first"], x["second"], alpha), x[f"predict_abstain_{alpha:g}"])


@pytest.mark.parametrize("call,error,message", [
    (lambda: smoothing.certificate(11, 10, 0.5, 0.05), ValueError, "count=11: expected at most samples=10"),
    (lambda: smoothing.certificate(3, 0, 0.5, 0.05), ValueError, "samples=0: expected at least 1"),
    (lambda: smoothing.certificate(-1, 10, 0.5, 0.05), ValueError, "count=-1: expected an integer >= 0"),
    (lambda: smoothing.certificate(9, 10, 0.0, 0.05), ValueError, "sigma=0"),
    (lambda: smoothing.certificate(9, 10, 0.5, 1.0), ValueError, "alpha=1"),
    (lambda: smoothing.certificate(9.0, 10, 0.5, 0.05), TypeError, "count of dtype float64: expected integers"),
    (lambda: smoothing.prediction_abstains(3, 4, 0.05), ValueError, "first=3: expected at least second=4"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
