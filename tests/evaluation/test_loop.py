"""The loop over a set: one batch in flight in every evaluation, every example once, positions kept."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.small_net import KEY, examples, logits_fn
from vmamba_jax import analysis, attacks, evaluation, parallel
from vmamba_jax.evaluation import loop as loops
from vmamba_jax.evaluation.loop import Loop

ONE = parallel.data_mesh(jax.devices()[:1])
N = 24


class Source:
    """A source that logs its reads."""

    def __init__(self, side, channels, log):
        self.images = np.random.default_rng(0).random((N, side, side, channels), np.float32)
        self.labels, self.log = np.zeros(N, int), log

    def __len__(self):
        return N

    def gather(self, index):
        if len(index) > 1:  # not the look at one image's shape
            self.log.append("r")
        return self.images[index], self.labels[index]


def linear(images):
    """Logits of two classes, the first always higher: every image of `Source` is robust."""
    mean = images.mean((1, 2, 3))
    return jnp.stack([mean, mean - 1], -1)


@dataclasses.dataclass(frozen=True)
class Stages:
    """Two attacks that change nothing: every stage attacks the same images."""
    settings = property(lambda self: {"name": "stages"})

    def stages(self):
        return [("first", lambda f, x, y, keys: x), ("second", lambda f, x, y, keys: x)]


EVALUATIONS = {
    "accuracy": evaluation.accuracy,
    "robust_accuracy": functools.partial(evaluation.robust_accuracy, attack=attacks.fgsm(0.01), key=KEY),
    "staged": functools.partial(evaluation.robust_accuracy, attack=Stages(), key=KEY),
    "calibration": evaluation.calibration_error,
    "corruptions": functools.partial(evaluation.corruption_accuracy, key=KEY, corruptions=("contrast", "brightness"), severities=(1, 2)),
    "disturbed": functools.partial(evaluation.disturbed_accuracy, disturbance="random_drop", grid=2, key=KEY),
    "transfer": lambda f, source, **loop: evaluation.transfer_matrix({"a": f, "b": f}, source, attacks.fgsm(0.01), key=KEY, **loop),
    "center": functools.partial(analysis.center_sensitivity, window=4, stride=4),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_one_batch_in_flight(name, monkeypatch):
    """Each batch is read and dispatched (d) before the outputs of the one before it are fetched (f)."""
    log, compiled, to_host = [], loops.compiled, parallel.to_host

    def dispatching(*args, **options):
        program = compiled(*args, **options)
        return lambda *args: (log.append("d"), program(*args))[1]
    monkeypatch.setattr(loops, "compiled", dispatching)
    monkeypatch.setattr(parallel, "to_host", lambda tree: (log.append("f"), to_host(tree))[1])
    EVALUATIONS[name](linear, Source(8, 3, log), batch_size=8, mesh=ONE)
    for events in passes(log):
        assert events == "rdrdfrdff"


def passes(log):
    """The events of each pass of three batches, successive dispatches as one; a pass ends with its third fetch."""
    text, fetches = "", 0
    for event in log:
        if event != "d" or not text.endswith("d"):
            text += event
        fetches += event == "f"
        if fetches == 3:
            yield text
            text, fetches = "", 0
    assert not text


def test_stages_are_all_run():
    log = []
    result = evaluation.robust_accuracy(linear, Source(8, 3, log), Stages(), key=KEY, batch_size=8, mesh=ONE)
    assert [stage["attacked"] for stage in result["stages"]] == [N, N, N] and result["robust"].all()


@pytest.mark.parametrize(("devices", "batch_size", "which"), [
    (1, 37, None), (3, 10, None), (8, 5, None), (2, 4, [0, 3, 7, 36]), (8, 3, [35])])
def test_every_position_once_and_in_order(devices, batch_size, which):
    images, labels = examples()
    loop, found = Loop(batch_size, parallel.data_mesh(jax.devices()[:devices])), {}
    run = loops.on_mesh(lambda tree, batch, key: {"label": batch["label"], "sum": batch["image"].sum((1, 2, 3))}, (), loop)
    order = []
    for index, outputs in loops.over_set(run, (images, labels), loop, which):
        order += index.tolist()
        found |= dict(zip(index.tolist(), zip(outputs["label"], outputs["sum"], strict=True), strict=True))
    expected = list(range(37)) if which is None else which
    assert list(dict.fromkeys(order)) == expected and sorted(order) == order
    np.testing.assert_array_equal([found[i][0] for i in expected], labels[expected])
    np.testing.assert_allclose([found[i][1] for i in expected], images[expected].sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(("devices", "batch_size", "rows"), [(1, 10, 10), (3, 10, 12), (8, 5, 8), (8, 100, 40), (8, 256, 40), (4, 8, 8)])
def test_rows_are_a_multiple_of_the_devices(devices, batch_size, rows):
    """batch_size rounded up to a multiple of the devices, at most what the set needs; the same for every batch."""
    loop = Loop(batch_size, parallel.data_mesh(jax.devices()[:devices]))
    sizes = [len(batch["index"]) for batch in loops.batches(examples(), loop)]
    assert set(sizes) == {rows} and len(sizes) == -(-37 // rows)


def test_an_empty_choice_runs_nothing():
    assert list(loops.over_set(lambda batch: pytest.fail("no batch expected"), examples(), Loop(), [])) == []


def test_only_shown_images_are_fetched(monkeypatch):
    """Of three batches, the images of the one with the shown position leave the device."""
    sizes, to_host = [], parallel.to_host
    monkeypatch.setattr(parallel, "to_host", lambda tree: (sizes.extend(x.size for x in jax.tree.leaves(tree)), to_host(tree))[1])
    result = evaluation.robust_accuracy(logits_fn(), examples(), attacks.fgsm(0.1), key=KEY, batch_size=16, mesh=ONE, show=[20])
    assert sizes.count(16 * 3 * 3 * 2) == 1 and result["adversarial"].shape == (1, 3, 3, 2)


def test_parts_of_a_progress():
    reports = []
    loop = Loop(mesh=ONE, progress=lambda *report: reports.append(report))
    loop.part(0, 3).progress(5, 10, {"accuracy": 0.5})
    loop.part(2, 3, "disturbed_accuracy").progress(10, 10, {"accuracy": 0.25})
    assert reports == [(5, 30, {"accuracy": 0.5}), (30, 30, {"disturbed_accuracy": 0.25})]
    assert Loop(mesh=ONE).part(1, 2) == Loop(mesh=ONE)


def test_defaults_and_refusals():
    assert Loop().batch_size == 256 and Loop().mesh.size == len(jax.devices()) and Loop().progress is None
    options = {"batch_size": 3, "eps": 0.1}
    assert Loop.take(options).batch_size == 3 and options == {"eps": 0.1}
    with pytest.raises(TypeError, match="'batches'"):
        evaluation.accuracy(logits_fn(), examples(), batches=3)
    with pytest.raises(ValueError, match="batch_size=0: expected"):
        Loop(0)
