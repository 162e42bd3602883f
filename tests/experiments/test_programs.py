"""Training and evaluation programs on tiny runs: files, resuming, cached results, errors."""
import json
import os
import shutil
import signal
import sys
import types

import jax
import ml_collections
import numpy as np
import pytest

import vmamba_jax
from configs import base, evaluate_weights
from experiments import evaluate, quickstart, train
from experiments.common import build, cli, results, wandb
from tests.helpers.tiny_runs import forbidden, tiny, tiny_quickstart
from vmamba_jax import attacks, checkpoints, data, evaluation, parallel, training
from vmamba_jax.core.saved_steps.reader import SavedSteps
from vmamba_jax.evaluation import staged

FILES = {"config.json", "metrics.jsonl", "timing.jsonl", "results.json", "training.html", "evaluation.json", "examples.npz"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quickstart of tiny runs, the adversarial one stopped by a signal and resumed."""
    workdir, read, sent = tmp_path_factory.mktemp("quickstart"), data.Batches.__getitem__, []

    def signalling(batches, t):
        if t == 5 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return read(batches, t)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Batches, "__getitem__", signalling)
        with pytest.raises(training.Stopped, match=r"stopped by SIGTERM after step \d of 8, saved in .*; the same command resumes from there"):
            train.run(tiny("pgd_at"), workdir / "pgd_at", progress=False)
        assert sent and not (workdir / "pgd_at" / "results.json").exists()
    page, evaluations = quickstart.run(workdir, tiny_quickstart(), progress=False)
    return workdir, page, evaluations


def test_files(finished):
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
        assert saved["accuracy"] >= curve[1] >= curve[2] and curve[1] == robust_at_half_the_radius(folder, objective)
        assert saved["attacks"]["pgd"]["label"] == "PGD-2, 2 restarts"
    text = page.read_text()
    assert evaluations["pgd_at"]["states"] is None and "Use of the scans" not in text
    assert page == workdir / "report.html" and "PGD-2, 2 restarts" in text and "standard/evaluation.json" in text


def robust_at_half_the_radius(folder, objective):
    """Robust accuracy at radius 0.1 of PGD with half the step size of the config's attack at 0.2."""
    config = tiny(objective)
    source = build.source(config, "test", 32)
    logits_fn = vmamba_jax.logits_fn(build.classifier(config, source), training.restore_variables(folder / "checkpoints", "best"))
    options = {**config.evaluation.attacks.pgd}
    attack = attacks.create(**options | {"eps": 0.1, "step_size": options["step_size"] / 2})
    return evaluation.robust_accuracy(logits_fn, source, attack, key=jax.random.key(0), batch_size=32)["robust_accuracy"]


@pytest.mark.parametrize("radius", [0.0, 0.05, 0.4])
def test_curve_scales_the_step_size_with_the_radius(radius):
    attack = build.resized(attacks.pgd(0.2, steps=4, step_size=0.05, restarts=3), radius)
    assert (attack.eps, attack.step_size, attack.steps, attack.restarts) == (radius, pytest.approx(radius / 4), 4, 3)
    assert build.resized(attacks.fgsm(0.2), radius).eps == radius


def test_stopped_run_resumes(finished):
    workdir, _, _ = finished
    steps = [json.loads(line)["step"] for line in (workdir / "pgd_at" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 4, 8, 8]  # the losses of an epoch, then its validation


def test_examples_are_within_the_radius(finished):
    workdir, _, _ = finished
    with np.load(workdir / "standard" / "examples.npz") as arrays:
        assert arrays["clean"].shape == arrays["adversarial"].shape and arrays["labels"].tolist() == sorted(set(arrays["labels"].tolist()))
        moved = np.abs(arrays["adversarial"] - arrays["clean"]).max((1, 2, 3))
        assert (moved > 0.1).all() and (moved <= 0.2 + 1e-6).all()
        assert arrays["adversarial"].min() >= 0 and arrays["adversarial"].max() <= 1


def test_finished_runs_are_not_repeated(finished, monkeypatch):
    workdir, page, evaluations = finished
    monkeypatch.setattr(training, "train", forbidden)
    monkeypatch.setattr(evaluation, "robust_accuracy", forbidden)
    before = page.read_text()
    again = quickstart.run(workdir, tiny_quickstart(), progress=False)
    assert again == (page, evaluations) and page.read_text() == before


def other_seed(config, patch):
    config.evaluation.seed = 1


def other_attack(config, patch):
    config.evaluation.attacks.pgd.steps = 3


def other_preprocessing(config, patch):
    config.preprocessing.std = (0.25,)


def other_model(config, patch):
    config.model.overrides.mlp_act = "relu"


def other_images(config, patch):
    config.evaluation.limit = 31


def other_weights(config, patch):
    restore = SavedSteps.restore_variables
    patch.setattr(SavedSteps, "restore_variables", lambda *args, **options: jax.tree.map(lambda x: x + 1e-3, restore(*args, **options)))


def other_package(config, patch):
    patch.setattr(results, "__version__", "0.0.0")


def other_jax(config, patch):
    patch.setattr(jax, "__version__", "0.0.0")


@pytest.mark.parametrize("change", [other_seed, other_attack, other_preprocessing, other_model, other_images, other_weights, other_package, other_jax])
def test_evaluation_with_another_identity_is_measured_again(finished, monkeypatch, change):
    workdir, _, evaluations = finished
    config, calls = tiny("standard"), []
    measured = lambda *args, **options: calls.append(args) or forbidden()
    monkeypatch.setattr(evaluation, "robust_accuracy", measured)
    assert evaluate.run(config, workdir / "standard", progress=False) == evaluations["standard"] and not calls
    change(config, monkeypatch)
    with pytest.raises(AssertionError, match="done already"):
        evaluate.run(config, workdir / "standard", progress=False)
    assert len(calls) == 1 and json.loads((workdir / "standard" / "evaluation.json").read_text()) == evaluations["standard"]


def test_identity_of_an_evaluation(finished):
    workdir, _, evaluations = finished
    identity, config = evaluations["standard"]["identity"], tiny("standard")
    variables = training.restore_variables(workdir / "standard" / "checkpoints", "best")
    assert identity["weights"] == parallel.fingerprint(variables) and identity["versions"]["jax"] == jax.__version__
    assert identity["data"] == build.source(config, "test", 32).fingerprint
    assert identity["settings"]["evaluation"] == json.loads(config.evaluation.to_json()) and identity["settings"]["model"]["mean"] == [0.5]


def test_autoattack_is_checked_before_the_other_attacks(finished, monkeypatch):
    config = tiny("standard")
    config.evaluation.autoattack, config.evaluation.limit = "standard", 31
    monkeypatch.setattr(evaluation, "robust_accuracy", forbidden)
    monkeypatch.setattr(staged, "check_stages", lambda *args: (_ for _ in ()).throw(ValueError("stage fab-t: no")))
    with pytest.raises(cli.ConfigError, match="config.evaluation.autoattack: stage fab-t: no"):
        evaluate.run(config, finished[0] / "standard", progress=False)


def test_other_identity_is_told_in_one_line(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished[0] / "standard", tmp_path / "run")
    config = tiny("standard")
    config.preprocessing.std = (0.25,)
    monkeypatch.setattr(evaluation, "robust_accuracy", forbidden)
    with pytest.raises(AssertionError, match="done already"):
        evaluate.run(config, tmp_path / "run", progress=False)
    [line] = capsys.readouterr().out.splitlines()
    assert line == f"{tmp_path / 'run' / 'evaluation.json'}: measured anew, since it was measured with other model.std ([0.5], now [0.25])"


@pytest.mark.parametrize("name", ["config.json", "results.json", "evaluation.json", "checkpoints/about.json"])
def test_empty_json_after_a_power_loss_is_named(finished, tmp_path, monkeypatch, capsys, name):
    """Nothing is overwritten; an evaluation is measured anew."""
    shutil.copytree(finished[0] / "standard", tmp_path / "run")
    (tmp_path / "run" / name).write_text("")
    monkeypatch.setattr(evaluation, "robust_accuracy", forbidden)
    monkeypatch.setattr(training, "train", forbidden)
    expected = f"{tmp_path / 'run' / name}: expected a JSON file .an empty file."
    if name == "evaluation.json":
        again = evaluate.run(tiny("standard"), tmp_path / "run", progress=False)  # from its parts
        assert {field: again[field] for field in ("attacks", "curve", "identity")} == {
            field: finished[2]["standard"][field] for field in ("attacks", "curve", "identity")}
        assert expected.split(" .an")[0] in capsys.readouterr().out
        (tmp_path / "run" / name).write_text("")
        shutil.rmtree(tmp_path / "run" / "parts")
        with pytest.raises(AssertionError, match="done already"):
            evaluate.run(tiny("standard"), tmp_path / "run", progress=False)
        assert expected.split(" .an")[0] in capsys.readouterr().out
        return
    with pytest.raises((cli.ConfigError, cli.RunError), match=expected):
        (evaluate if "about" in name else train).run(tiny("standard"), tmp_path / "run", progress=False)
    assert (tmp_path / "run" / name).read_text() == ""


@pytest.mark.parametrize("deleted", ["config.json", "checkpoints", "results.json"])
def test_another_seed_is_noticed_whatever_was_deleted(finished, tmp_path, monkeypatch, deleted):
    shutil.copytree(finished[0] / "standard", tmp_path / "run")
    path = tmp_path / "run" / deleted
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = {file: file.read_bytes() for file in (tmp_path / "run").glob("*.json*")}
    config = tiny("standard")
    config.seed = 5
    monkeypatch.setattr(training, "train", forbidden)
    with pytest.raises(cli.ConfigError, match="expected the config that this run started with"):
        train.run(config, tmp_path / "run", progress=False)
    assert before == {file: file.read_bytes() for file in (tmp_path / "run").glob("*.json*")}


def test_config_of_an_earlier_version_resumes_its_run(finished, tmp_path, monkeypatch):
    """A config.json without the keys that are newer than it is the same config."""
    workdir, _, _ = finished
    shutil.copytree(workdir / "standard", tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    for section in ("extra", "repeats", "transform", "loader", "mix", "init", "weights"):
        del saved[section]
    saved["schedule"] = {name: saved["schedule"][name] for name in ("name", "learning_rate", "warmup")}
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    monkeypatch.setattr(training, "train", forbidden)
    assert train.run(tiny("standard"), tmp_path / "run", progress=False)["steps"] == 8
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(tiny("standard").to_json())


def test_incomplete_config_gets_neutral_values(tmp_path, monkeypatch):
    """A config that is not made from configs/base.py trains with the neutral values and saves all of them."""
    config = ml_collections.ConfigDict({name: value for name, value in tiny("standard").to_dict().items() if name not in ("skips", "mix", "wandb")})
    monkeypatch.setattr(training, "train", forbidden)
    with pytest.raises(AssertionError, match="done already"):
        train.run(config, tmp_path, progress=False)
    assert json.loads((tmp_path / "config.json").read_text())["skips"] == base.run().skips.to_dict()
    config.epoch = 3
    with pytest.raises(cli.ConfigError, match="^config.epoch: unknown field"):
        train.run(config, tmp_path / "other", progress=False)


@pytest.mark.parametrize("checkpoints", [True, False])
def test_another_config_is_refused_with_the_difference(finished, tmp_path, checkpoints):
    """Also for a finished run without its checkpoints."""
    workdir = tmp_path
    shutil.copytree(finished[0] / "standard", workdir / "standard")
    if not checkpoints:
        shutil.rmtree(workdir / "standard" / "checkpoints")
    config = tiny("standard")
    config.epochs, config.model.overrides.dims = 3, (16,)
    with pytest.raises(cli.ConfigError, match="workdir=.*: expected the config that this run started with; choose another --workdir") as error:
        train.run(config, workdir / "standard", progress=False)
    assert error.value.details == ("field                 was  is now", "epochs                2    3", "model.overrides.dims  [8]  [16]")
    assert json.loads((workdir / "standard" / "config.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_finished_run_is_trained_longer(finished, tmp_path, capsys):
    """With more epochs, and nothing else changed: from the last checkpoint, as one call says and a later one repeats."""
    folder = shutil.copytree(finished[0] / "standard", tmp_path / "run")
    before, longer = results.load_json(folder / "results.json"), tiny("standard")
    longer.epochs = 3
    after = train.run(longer, folder, progress=False)
    assert (before["steps"], after["steps"]) == (8, 12) and after["sha256"] != before["sha256"] and after["config"]["epochs"] == 3
    assert "the finished run of 2 epochs is trained to 3" in capsys.readouterr().out
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 12 and steps == sorted(steps)
    assert train.run(longer, folder, progress=False)["sha256"] == after["sha256"] and "trained to" not in capsys.readouterr().out
    with pytest.raises(cli.ConfigError, match="expected the config that this run started with"):
        train.run(tiny("standard"), folder, progress=False)


def test_loop_gets_the_configs_numbers(tmp_path, monkeypatch):
    config, given = tiny("standard"), {}
    config.epochs, config.validation.every_epochs, config.log_every, config.checkpoints.keep, config.skips.in_a_row = 6, 3, 2, 5, 7
    config.validation.select = "robust_accuracy"
    monkeypatch.setattr(training, "train", lambda *args, **options: given.update(options) or forbidden())
    with pytest.raises(AssertionError, match="done already"):
        train.run(config, tmp_path, progress=False)
    expected = {"checkpoints": {"keep_latest": 5, "best_metric": "validation/robust_accuracy"}, "validation": {"every": 12},
                "monitoring": {"log_every": 2, "progress": False, "skips_in_a_row": 7, "skips_in_all": 100, "stop_on_signals": True}}
    assert given["steps"] == 24
    for group, fields in expected.items():
        assert {name: getattr(given[group], name) for name in fields} == fields


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_averaged_weights_are_evaluated_if_there_are_any(finished, monkeypatch, decay):
    config, given = tiny("standard"), {}
    config.ema_decay = decay
    monkeypatch.setattr(SavedSteps, "restore_variables", lambda self, step, **options: given.update(options) or forbidden())
    with pytest.raises(AssertionError, match="done already"):
        evaluate.run(config, finished[0] / "standard", progress=False)
    assert given == {"ema": bool(decay)}


def test_config_may_change_before_the_first_step(tmp_path, monkeypatch):
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
def test_failure_of_a_run_is_one_error(tmp_path, monkeypatch, error):
    def fails(*args, **options):
        raise error
    monkeypatch.setattr(training, "train", fails)
    with pytest.raises(cli.RunError, match=str(error.args[-1])):
        train.run(tiny("standard"), tmp_path, progress=False)
    assert not list(tmp_path.glob("*.part")) and not (tmp_path / "results.json").exists()


def test_weights_and_biases(monkeypatch, tmp_path):
    """With a stand-in for the package, which is imported only if a project is named."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert wandb.logger("", tmp_path, {}) is None
    with pytest.raises(cli.ConfigError, match="config.wandb='mine': expected the package wandb to be installed; pip install wandb"):
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


def test_converted_weights_have_the_same_figures(finished, tmp_path):
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
