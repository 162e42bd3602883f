"""Arguments out of range are named with their value and what was expected."""
import numpy as np
import pytest

from vmamba_jax.core import checks


@pytest.mark.parametrize("value, bounds", [(0, {"low": 0}), (np.float32(0.5), {"above": 0, "below": 1}), (1, {"high": 1}), (-3.5, {}), (None, {"optional": True})])
def test_numbers(value, bounds):
    assert checks.number("x", value, **bounds) == value


@pytest.mark.parametrize("value, bounds, error, message", [
    (-1, {"low": 0}, ValueError, "x=-1.0: expected a finite number >= 0"), (0, {"above": 0}, ValueError, "x=0.0: expected a finite number > 0"),
    (2, {"low": 0, "high": 1}, ValueError, "x=2.0: expected a finite number >= 0 and <= 1"), (1, {"below": 1}, ValueError, "x=1.0: expected a finite number < 1"),
    (float("nan"), {}, ValueError, "x=nan: expected a finite number"), (np.inf, {"above": 0}, ValueError, "x=inf: "),
    ("1", {"optional": True}, TypeError, "x='1': expected None or a finite number"), (True, {}, TypeError, "x=True: "), (np.ones(2), {}, TypeError, "x=array"),
])
def test_no_such_number(value, bounds, error, message):
    with pytest.raises(error) as raised:
        checks.number("x", value, **bounds)
    assert str(raised.value).startswith(message)


def test_counts_intervals_and_choices():
    assert checks.count("n", np.int64(3)) == 3 and checks.count("n", -2, None) == -2 and checks.count("n", None, optional=True) is None
    assert checks.interval("pair", [1, 2], above=0) == (1.0, 2.0) and checks.choice("kind", "a", {"a": 1}) == "a"
    for check, error, message in [
        (lambda: checks.count("n", 0), ValueError, r"n=0: expected an integer >= 1"), (lambda: checks.count("n", np.True_), TypeError, "an integer >= 1"),
        (lambda: checks.count("n", 1.0, None), TypeError, "n=1.0: expected an integer$"),
        (lambda: checks.interval("pair", (2, 1)), ValueError, r"pair=\(2, 1\): expected an ascending pair"),
        (lambda: checks.interval("pair", (0, 1), above=0), ValueError, r"pair\[0\]=0.0: "), (lambda: checks.interval("pair", 3), TypeError, "pair=3: "),
        (lambda: checks.choice("kind", "b", {"a": 1}), ValueError, "kind='b': expected one of 'a'$"),
    ]:
        with pytest.raises(error, match=message):
            check()
