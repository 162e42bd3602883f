"""Corruptions and calibration in an evaluation, and which of its parts are measured again: tiny random weights on sixteen digits."""
import json

import jax
import numpy as np
import pytest

import vmamba_jax
from configs import base, evaluate_weights
from experiments import evaluate
from experiments.common import build, cli, corrupted
from experiments.common import evaluation as program
from tests.helpers import weight_places
from tests.helpers.tiny_runs import forbidden
from vmamba_jax import checkpoints, data, evaluation, reports
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.evaluation import corruptions

TINY = {"stem": "cifar", "stem_width": 4, "layers": (1,), "channels": (4,), "num_classes": 10, "in_channels": 1}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """FGSM, and a curve at its radius alone, which measures nothing more; two corruptions at two severities; calibration."""
    folder = tmp_path_factory.mktemp("weights") / "weights"
    variables = weight_places.random(vmamba_jax.create_model("resnet18", **TINY))
    checkpoints.save_variables(folder, variables, {"model": "resnet18", "overrides": TINY})
    made = evaluate_weights.get_config("model=resnet18")
    made.weights, made.data, made.preprocessing = str(folder), {"name": "digits", "root": "", "options": {}}, {"mean": (0.5,), "std": (0.5,)}
    made.model.overrides = TINY
    made.evaluation.update(split="test", limit=16, batch_size=16)
    made.evaluation.attacks = {"fgsm": made.evaluation.attacks.fgsm}
    made.evaluation.curve = {"attack": "fgsm", "radii": (0.0, 4 / 255)}
    made.evaluation.corruptions = {"names": "contrast+brightness", "severities": (5, 1)}
    made.evaluation.calibration.bins = 10
    return base.complete(made)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """An evaluation that was killed in its second corruption and started again."""
    workdir, measured = tmp_path_factory.mktemp("evaluation"), evaluation.corruption_accuracy

    def killed(*args, corruptions, **options):
        if corruptions == ("brightness",):
            raise KeyboardInterrupt
        return measured(*args, corruptions=corruptions, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "corruption_accuracy", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(config, workdir, progress=False)
    before = {path.name: path.stat().st_mtime_ns for path in (workdir / "parts").iterdir()}
    assert {name.rpartition("-")[0] for name in before} == {"fgsm", "corruption_contrast"} and not (workdir / "evaluation.json").exists()
    content = evaluate.run(config, workdir, progress=False)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in (workdir / "parts").iterdir()}.items()
    return workdir, content


def test_figures_are_those_of_the_package(finished, config):
    workdir, content = finished
    assert json.loads((workdir / "evaluation.json").read_text()) == content
    source = build.source(config, "test", 16)
    variables, _ = checkpoints.load_variables(config.weights)
    logits_fn = vmamba_jax.logits_fn(build.classifier(config, source), variables)
    images, labels = source.gather(np.arange(16))
    rows = evaluation.corruption_accuracy(lambda x: logits_fn(x[..., :1]), (images.repeat(3, -1), labels), key=jax.random.key(0),
                                          corruptions=("contrast", "brightness"), severities=(1, 5), batch_size=16)
    assert content["corruptions"] == {"rows": rows, "accuracy": np.mean([row["accuracy"] for row in rows]), "mce": None}
    assert content["calibration"] == evaluation.calibration_error(logits_fn, source, bins=10, batch_size=16)
    assert content["curve"]["robust_accuracy"] == [content["accuracy"], content["attacks"]["fgsm"]["robust_accuracy"]]


def test_page_and_terminal_have_the_tables(finished):
    run = reports.read_run(finished[0])
    page, text = reports.render([run], title="t"), reports.tables.text([run])
    rows = finished[1]["corruptions"]["rows"]
    for shown in ("severity 1", "severity 5", "contrast", "brightness", reports.tables.percent(rows[1]["accuracy"]),
                  reports.tables.percent(finished[1]["calibration"]["adaptive_ece"])):
        assert shown in page and shown in text
    assert "Mean over corruptions and severities" in text and "AlexNet" not in text


MEASURES = ("robust_accuracy", "accuracy", "corruption_accuracy", "calibration_error")


@pytest.mark.parametrize("change, expected", [
    ({}, None), ({"examples": 3}, ()), ({"batch_size": 8}, ()), ({"calibration.bins": 5}, ("calibration_error",)),
    ({"corruptions.names": "contrast"}, ()), ({"corruptions.names": "fog+contrast"}, ("corruption_accuracy",)),
    ({"corruptions.severities": (2,)}, ("corruption_accuracy",) * 2), ({"attacks.fgsm.eps": 0.1, "curve.radii": (0.0,)}, ("robust_accuracy",)),
    ({"seed": 1}, ("robust_accuracy", "corruption_accuracy", "corruption_accuracy")), ({"skip_attacks": True}, ("accuracy",)),
    ({"limit": 15}, ("robust_accuracy", "corruption_accuracy", "corruption_accuracy", "calibration_error"))])
def test_only_what_changed_is_measured_again(finished, config, monkeypatch, change, expected):
    workdir, _ = finished
    other, calls, saved = base.complete(config), [], (workdir / "evaluation.json").read_bytes()
    for name, value in change.items():
        *sections, field = name.split(".")
        section = other.evaluation
        for part in sections:
            section = section[part]
        section[field] = value
    row = {"accuracy": 0.5, "examples": 16, "robust_accuracy": 0.25, "accuracy_interval": [0, 1], "attack": {}, "corruption": "fog", "severity": 1}
    for name in MEASURES:
        monkeypatch.setattr(evaluation, name, lambda *args, name=name, **options: calls.append(name) or ([row] if "corruption" in name else dict(row)))
    monkeypatch.setattr(program, "_examples", lambda *args: {})
    before = {path.name for path in (workdir / "parts").iterdir()}
    found = evaluate.run(other, workdir, progress=False)
    assert tuple(calls) == (expected or ())
    assert (expected is None) == ((workdir / "evaluation.json").read_bytes() == saved)
    (workdir / "evaluation.json").write_bytes(saved)
    for path in (workdir / "parts").iterdir():
        if path.name not in before:
            path.unlink()
    if "skip_attacks" in change:
        assert found["attacks"] == {} and found["curve"] is None and not (workdir / "examples.npz").exists()


def test_a_damaged_part_is_measured_again(finished, config, tmp_path, monkeypatch):
    workdir, _ = finished
    (tmp_path / "parts").mkdir()
    for path in (workdir / "parts").iterdir():
        (tmp_path / "parts" / path.name).write_bytes(path.read_bytes() if "calibration" not in path.name else b"")
    monkeypatch.setattr(evaluation, "robust_accuracy", forbidden)
    monkeypatch.setattr(evaluation, "corruption_accuracy", forbidden)
    assert evaluate.run(config, tmp_path, progress=False)["calibration"] == finished[1]["calibration"]


def test_page_without_attacks(finished, config, tmp_path):
    content = finished[1] | {"attacks": {}, "curve": None, "corruptions": finished[1]["corruptions"] | {"mce": 76.72}}
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    run = reports.read_run(tmp_path)
    page = reports.render([run], title="t")
    assert f"Clean accuracy: {reports.tables.percent(content['accuracy'])} for {tmp_path.name}." in page and "perturbation budget" not in page
    assert "brightness" in page and run.headline is None
    assert all("Mean corruption error relative to AlexNet: 76.7 %." in text for text in (page, reports.tables.text([run])))


def test_mean_corruption_error_is_imagenets():
    """For the 1000 classes, the fifteen corruptions and all severities; AlexNet's own errors give 100 %."""
    rows = [{"corruption": name, "severity": severity, "accuracy": 1 - error} for name, error in corruptions.ALEXNET.items() for severity in range(1, 6)]
    image = np.zeros((1, 8, 8, 3), np.uint8)
    full = data.Arrays(image, [0], [identifier for identifier, _ in imagenet.classes()])
    assert corrupted.summary(rows, full)["mce"] == pytest.approx(100)
    for fewer, source in (([row for row in rows if row["severity"] < 5], full), (rows[5:], full), (rows, data.Arrays(image, [0], range(1000)))):
        assert corrupted.summary(fewer, source)["mce"] is None


@pytest.mark.parametrize("name, value, message", [
    ("corruptions.names", "fog+nosuch", "config.evaluation.corruptions.names='fog\\+nosuch': corruption='nosuch': expected one of 'all', 'gaussian_noise'"),
    ("corruptions.names", "fog+fog", "expected 'all', or different names joined by"), ("corruptions.severities", (6,), "config.evaluation.corruptions.severities"),
    ("corruptions.severities", (), "expected at least 1 entry"), ("calibration.bins", -1, "config.evaluation.calibration.bins=-1"),
    ("autoattack", "standard", "config.evaluation.autoattack='standard': expected '' with config.evaluation.skip_attacks=True")])
def test_bad_values(config, tmp_path, name, value, message):
    other = base.complete(config)
    section, field = (other.evaluation[name.split(".")[0]] if "." in name else other.evaluation), name.split(".")[-1]
    section[field], other.evaluation.skip_attacks = value, True
    with pytest.raises(cli.ConfigError, match=message):
        evaluate.run(other, tmp_path, progress=False)


def test_logits_of_other_classes_are_refused(config, tmp_path):
    """A thousand logits for ten labels: one line, before anything is measured."""
    other = base.complete(config)
    other.model.overrides.num_classes = 1000
    source = data.Arrays(np.zeros((3, 8, 8, 1), np.uint8), [0, 1, 2], ("a", "b", "c"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "source", lambda *args: source)
        with pytest.raises(cli.ConfigError, match="config.data: classes=a, b, c: expected WordNet identifiers of ImageNet-1k"):
            evaluate.run(other, tmp_path, progress=False)
