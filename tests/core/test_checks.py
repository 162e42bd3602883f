"""Argument checks: types, bounds, registries and the wording of errors."""
import jax
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


def some(x, *, size=1):
    return x, size


def test_registry_entries_and_options():
    table = {"some": some, "any": lambda x, **options: x}
    assert checks.by_name("thing", "some", table) is some
    assert checks.by_name("thing", "some", table, {"size": 2}, positional=1) is some
    assert checks.by_name("thing", "any", table, {"whatever": 2}) is table["any"]
    for name, options, error, message in [
        ("none", None, ValueError, "thing='none': expected one of 'some', 'any'$"),
        ("some", {"sice": 2}, TypeError, "sice=2: expected an option of thing 'some', one of 'size'$"),
        ("some", {"x": 2}, TypeError, "x=2: expected an option of thing 'some', one of 'size'$"),
    ]:
        with pytest.raises(error, match=message):
            checks.by_name("thing", name, table, options, positional=1)


def test_model_fields():
    checks.images(np.zeros((1, 2, 2, 3)), 3)
    checks.stages((0, 3), 4)
    checks.same_length(depths=(1, 2), dims=(3, 4))
    checks.require(True, "unused")
    for check, message in [
        (lambda: checks.images(np.zeros((2, 2, 3)), 3), r"images.shape=\(2, 2, 3\): expected \(batch, height, width, 3\)"),
        (lambda: checks.stages((0, 4), 4), r"out_indices=\(0, 4\): expected stages in 0..3"),
        (lambda: checks.same_length(depths=(1, 2), dims=(3,)), r"depths=\(1, 2\), dims=\(3,\): expected sequences of one length"),
        (lambda: checks.same_length(depths=(), dims=()), "expected sequences of one length, at least 1"), (lambda: checks.require(False, "x=1: expected 2"), "x=1: expected 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            check()


def test_traced_values():
    """Only the shape and dtype of a traced value are checked."""
    assert jax.jit(lambda x: checks.number("x", x, low=0))(-1.0) == -1
    with pytest.raises(ValueError, match=r"x=traced int32\(\): expected a floating scalar"):
        jax.jit(lambda x: checks.number("x", x))(1)
