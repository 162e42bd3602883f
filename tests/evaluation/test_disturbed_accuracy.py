"""Accuracy under a disturbance: computed by hand, independent of devices and batches, one compilation of the model."""
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import small_net
from tests.helpers.small_net import KEY, TRACES
from vmamba_jax import evaluation, parallel
from vmamba_jax.evaluation import disturbances

N = 37
logits_fn, examples = functools.partial(small_net.logits_fn, side=4), functools.partial(small_net.examples, side=4)


@functools.cache
def by_hand(disturbance):
    images, labels = examples()
    disturbed = disturbance(jnp.asarray(images), KEY, logits_fn(), jnp.asarray(labels))
    before, after = (np.asarray(logits_fn()(x)).argmax(1) == labels for x in (images, disturbed))
    return before, after


@pytest.mark.parametrize("disturbance", [disturbances.create("random_drop", grid=2, area=2),
                                         disturbances.create("salient_drop", grid=2, area=1)], ids=str)
@pytest.mark.parametrize(("devices", "batch_size"), [(1, 37), (8, 5)])
@pytest.mark.often(2)
def test_same_for_all_devices_and_batches(disturbance, devices, batch_size):
    mesh, reports = parallel.data_mesh(jax.devices()[:devices]), []
    row = evaluation.disturbed_accuracy(logits_fn(), examples(), disturbance, key=KEY, batch_size=batch_size, mesh=mesh,
                                        progress=lambda *report: reports.append(report))
    before, after = by_hand(disturbance)
    lost, gained = (before & ~after).sum(), (after & ~before).sum()
    assert (row["accuracy"], row["disturbed_accuracy"], row["lost"], row["gained"]) == (before.mean(), after.mean(), lost, gained)
    assert lost > 0 and abs(row["drop"] - (before.mean() - after.mean())) < 1e-12
    for name in ("accuracy", "disturbed_accuracy", "drop"):
        low, high = row[f"{name}_interval"]
        assert low < row[name] < high
    np.testing.assert_array_equal(row.pop("correct"), after)
    assert row["disturbance"] == disturbance.settings and row["examples"] == N and json.loads(json.dumps(row)) == row
    assert reports[-1][:2] == (2 * N, 2 * N) and reports[-1][2] == {"disturbed_accuracy": after.mean()}
    assert [done for done, *_ in reports] == sorted(done for done, *_ in reports)


def test_clean_given_and_one_compilation():
    """With `clean` there is one pass; other disturbances do not retrace the model."""
    options = {"key": KEY, "batch_size": 16}
    whole = evaluation.disturbed_accuracy(logits_fn(), examples(), "patch_shuffle", grid=2, **options)
    clean = evaluation.accuracy(logits_fn(), examples(), batch_size=16)["correct"]
    count, reports = len(TRACES), []
    row = evaluation.disturbed_accuracy(logits_fn(), examples(), "patch_shuffle", grid=2, clean=clean, **options,
                                        progress=lambda *report: reports.append(report[:2]))
    np.testing.assert_array_equal(row.pop("correct"), whole.pop("correct"))
    assert row == whole and reports[-1] == (N, N)
    other = evaluation.disturbed_accuracy(logits_fn(), examples(), "center_drop", grid=2, area=4, clean=clean, **options)
    assert len(TRACES) == count + 2 and other["accuracy"] == row["accuracy"]
    black = evaluation.accuracy(logits_fn(), (0 * examples()[0], examples()[1]), batch_size=16)
    assert other["disturbed_accuracy"] == black["accuracy"]


def test_any_function():
    row = evaluation.disturbed_accuracy(logits_fn(), examples(), lambda images, keys: 1 - images, key=KEY)
    images, labels = examples()
    assert row["disturbed_accuracy"] == evaluation.accuracy(logits_fn(), (1 - images, labels))["accuracy"]


@pytest.mark.parametrize(("change", "error", "text"), [
    ({"disturbance": "blur"}, ValueError, "disturbance='blur'"), ({"clean": np.ones(3)}, ValueError, "clean has shape (3,)"),
    ({"disturbance": disturbances.create("patch_shuffle"), "grid": 2}, TypeError, "'grid'"),
    ({"batch_size": 0}, ValueError, "batch_size=0"),
], ids=str)
def test_errors(change, error, text):
    options = {"disturbance": disturbances.create("patch_shuffle", grid=2)} | change
    with pytest.raises(error) as raised:
        evaluation.disturbed_accuracy(logits_fn(), examples(), options.pop("disturbance"), key=KEY, **options)
    assert text in str(raised.value)
