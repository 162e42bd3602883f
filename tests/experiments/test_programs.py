"""The programs through `run`, on the real digits with a model and a training so small that only the plumbing is tested."""
import json
import os
import signal
import sys
import types

import numpy as np
import pytest

from configs import digits, evaluate_weights
from experiments import evaluate, quickstart, train
from experiments.common import cli, wandb
from vmamba_jax import checkpoints, data, evaluation, training

FILES = {"config.json", "metrics.jsonl", "timing.jsonl", "results.json", "training.html", "evaluation.json", "examples.npz"}


def tiny(objective):
    config = digits.get_config(f"objective={objective}")
    config.epochs, config.batch_size = 2, 256
    config.model.overrides.update(dims=(8,), depths=(1,), patch_size=4)
    config.validation.attack.steps, config.validation.every_epochs = 1, 1
    config.evaluation.update(limit=32, batch_size=32)
    config.evaluation.attacks = {"pgd": {**config.evaluation.attacks.pgd, "steps": 2, "restarts": 2}}
    config.evaluation.curve.radii = (0.0, 0.1, 0.2)
    if objective == "pgd_at":
        config.objective.attack.steps = 1
    return config


def forbidden(*args, **options):
    raise AssertionError("this was done already")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quickstart of tiny runs, the adversarial one asked to stop on its way and begun again."""
    workdir, read, sent = tmp_path_factory.mktemp("quickstart"), data.Batches.__getitem__, []

    def signalling(batches, t):
        if t == 5 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return read(batches, t)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Batches, "__getitem__", signalling)
        with pytest.raises(cli.Stopped, match=r"stopped by SIGTERM after step \d of 8, saved in .*; the same command goes on from there"):
            train.run(tiny("pgd_at"), workdir / "pgd_at", progress=False)
        assert sent and not (workdir / "pgd_at" / "results.json").exists()
    page, evaluations = quickstart.run(workdir, {name: tiny(name) for name in ("standard", "pgd_at")}, progress=False)
    return workdir, page, evaluations


def test_everything_is_written(finished):
    workdir, page, evaluations = finished
    for objective, saved in evaluations.items():
        folder = workdir / objective
        assert FILES <= {path.name for path in folder.iterdir()} and not list(folder.glob("*.part"))
        results = json.loads((folder / "results.json").read_text())
        assert results["steps"] == 8 and results["steps_per_epoch"] == 4 and results["best"]["step"] in (4, 8)
        assert set(results["versions"]) >= {"python", "jax", "jaxlib", "flax", "optax"} and len(results["data"]["fingerprint"]) == 16
        assert json.loads((folder / "evaluation.json").read_text()) == saved and saved["examples"] == 32
        curve = saved["curve"]["robust_accuracy"]
        assert curve[0] == saved["accuracy"] and curve[2] == saved["attacks"]["pgd"]["robust_accuracy"]
        assert saved["accuracy"] >= curve[1] >= curve[2]
        assert saved["attacks"]["pgd"]["label"] == "PGD-2, 2 restarts"
    text = page.read_text()
    assert page == workdir / "report.html" and "PGD-2, 2 restarts" in text and "standard/evaluation.json" in text


def test_a_stopped_run_went_on(finished):
    workdir, _, _ = finished
    steps = [json.loads(line)["step"] for line in (workdir / "pgd_at" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 4, 8, 8]  # the losses of an epoch, then its validation


def test_examples_lie_within_the_radius(finished):
    workdir, _, _ = finished
    with np.load(workdir / "standard" / "examples.npz") as arrays:
        assert arrays["clean"].shape == arrays["adversarial"].shape and arrays["labels"].tolist() == sorted(set(arrays["labels"].tolist()))
        moved = np.abs(arrays["adversarial"] - arrays["clean"]).max((1, 2, 3))
        assert (moved > 0.1).all() and (moved <= 0.2 + 1e-6).all()
        assert arrays["adversarial"].min() >= 0 and arrays["adversarial"].max() <= 1


def test_nothing_is_done_twice(finished, monkeypatch):
    workdir, page, evaluations = finished
    monkeypatch.setattr(training, "train", forbidden)
    monkeypatch.setattr(evaluation, "robust_accuracy", forbidden)
    before = page.read_text()
    again = quickstart.run(workdir, {name: tiny(name) for name in ("standard", "pgd_at")}, progress=False)
    assert again == (page, evaluations) and page.read_text() == before


def test_another_evaluation_is_done_anew(finished, monkeypatch):
    workdir, _, evaluations = finished
    config = tiny("standard")
    config.evaluation.seed = 1
    monkeypatch.setattr(evaluation, "robust_accuracy", forbidden)
    with pytest.raises(AssertionError, match="done already"):
        evaluate.run(config, workdir / "standard", progress=False)
    assert json.loads((workdir / "standard" / "evaluation.json").read_text()) == evaluations["standard"]


def test_another_config_is_refused_with_the_difference(finished):
    workdir, _, _ = finished
    config = tiny("standard")
    config.epochs, config.model.overrides.dims = 3, (16,)
    with pytest.raises(cli.ConfigError, match="was begun with another config: choose another --workdir") as error:
        train.run(config, workdir / "standard", progress=False)
    assert error.value.details == ("field                 was  is now", "epochs                2    3", "model.overrides.dims  [8]  [16]")
    assert json.loads((workdir / "standard" / "config.json").read_text())["epochs"] == 2


def test_a_config_that_could_not_begin_may_be_mended(tmp_path, monkeypatch):
    config = tiny("standard")
    config.batch_size = 10_000
    with pytest.raises(cli.ConfigError, match="config.batch_size=10000"):
        train.run(config, tmp_path, progress=False)
    config.batch_size = 256
    monkeypatch.setattr(training, "train", forbidden)
    with pytest.raises(AssertionError, match="done already"):
        train.run(config, tmp_path, progress=False)


@pytest.mark.parametrize("error", [training.SaveError("step 3 could not be saved"), FloatingPointError("step 3: a metric"),
                                   OSError(28, "No space left"), training.DamagedCheckpoint("no step in"),
                                   training.Locked("is in use")], ids=lambda error: type(error).__name__)
def test_what_ends_a_run_is_one_error(tmp_path, monkeypatch, error):
    def fails(*args, **options):
        raise error
    monkeypatch.setattr(training, "train", fails)
    with pytest.raises(cli.RunError, match=str(error.args[-1])):
        train.run(tiny("standard"), tmp_path, progress=False)
    assert not list(tmp_path.glob("*.part")) and not (tmp_path / "results.json").exists()


def test_weights_and_biases(monkeypatch, tmp_path):
    """A stand-in for the package, which is imported only where a project is named."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert wandb.logger("", tmp_path, {}) is None
    with pytest.raises(cli.ConfigError, match="config.wandb='mine' needs the package wandb: pip install wandb"):
        wandb.logger("mine", tmp_path, {})
    begun, logged = [], []

    def init(**options):
        begun.append(options)
        return types.SimpleNamespace(log=lambda values, step: logged.append((step, values)))

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for _ in range(2):
        wandb.logger("mine", tmp_path, {"seed": 0})(3, {"loss": 0.5})
    assert logged == [(3, {"loss": 0.5})] * 2 and begun[0] == begun[1]
    assert begun[0]["project"] == "mine" and begun[0]["config"] == {"seed": 0} and begun[0]["resume"] == "allow"


def test_converted_weights_give_the_same_figures(finished, tmp_path):
    workdir, _, evaluations = finished
    own = tiny("standard")
    variables = training.restore_variables(workdir / "standard" / "checkpoints", "best")
    checkpoints.save_variables(tmp_path / "weights", variables, {"model": own.model.name})
    config = evaluate_weights.get_config()
    config.weights = str(tmp_path / "weights")
    config.data, config.model, config.preprocessing, config.evaluation = own.data, own.model, own.preprocessing, own.evaluation
    saved = evaluate.run(config, tmp_path / "run", progress=False)
    assert saved["attacks"] == evaluations["standard"]["attacks"] and saved["curve"] == evaluations["standard"]["curve"]
    assert saved["checkpoint"]["metadata"]["model"] == own.model.name


@pytest.mark.parametrize("robust, clean, count", [((0.03, 0.69), 0.98, 0), ((0.3, 0.69), 0.98, 1), ((0.03, 0.69), 0.95, 1), ((0.3, 0.4), 0.9, 2)])
def test_shortfalls(robust, clean, count):
    evaluations = {name: {"accuracy": clean, "curve": {"attack": "pgd"}, "attacks": {"pgd": {"robust_accuracy": value}}}
                   for name, value in zip(("standard", "pgd_at"), robust, strict=True)}
    assert len(quickstart.shortfalls(evaluations)) == count
