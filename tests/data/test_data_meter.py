"""The meter of the input rate."""
import numpy as np
import pytest

from vmamba_jax import data


def test_meter_wait_fraction():
    now = [0.0]

    def batches():
        for seconds in (1.0, 0.5, 0.5):
            now[0] += seconds
            yield {"label": np.zeros(8)}
    meter = data.Meter(batches(), clock=lambda: now[0])
    assert meter.elapsed == meter.wait_fraction == meter.rate == 0
    next(meter)
    assert meter.wait_fraction == 1 and meter.rate == 8
    now[0] += 3  # the consumer works
    assert meter.wait_fraction == 0.25 and meter.images == 8 and meter.rate == 2
    meter.restart()
    for _ in meter:
        now[0] += 1.5
    assert (meter.waited, meter.elapsed, meter.images, meter.wait_fraction, meter.rate) == (1.0, 4.0, 16, 0.25, 4)


def test_meter_closes_and_input_rate_reads():
    closed = []

    def batches():
        try:
            yield from ({"label": np.zeros(1)} for _ in range(9))
        finally:
            closed.append(True)
    meter = data.Meter(batches())
    next(meter)
    meter.close()
    assert closed == [True]
    assert data.input_rate(data.Batches(data.Arrays(np.zeros((20, 2, 2, 3), np.uint8), np.zeros(20, int)), 4), steps=5) > 0


def test_old_name_of_wait_fraction():
    meter = data.Meter([])
    with pytest.warns(DeprecationWarning, match="wait_fraction"):
        assert meter.share == meter.wait_fraction
    assert not hasattr(meter, "shares")
