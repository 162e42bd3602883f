"""Training, evaluation and a study from weights of every place, as the programs read them."""
import json
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from PIL import Image

import vmamba_jax
import vmamba_jax.__main__ as commands
from configs import base
from experiments import evaluate, train
from experiments.common import build, cli, results
from experiments.robustness_study import models as study_models
from tests.helpers.command_runs import run_command
from tests.helpers.forked_programs import run_programs
from tests.helpers.tiny_runs import forbidden, tiny
from tests.helpers.weight_places import random, write_run
from vmamba_jax import checkpoints

NAMES = tuple(map(str, range(12)))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The tiny digits run's model with twelve classes, whose first ten are the digits: run/ (step 1 the best, then 2), converted/, weights.safetensors."""
    folder, config = tmp_path_factory.mktemp("own"), base.complete(tiny("standard"))
    model = build.classifier(config, types.SimpleNamespace(classes=NAMES, image_shape=(8, 8, 1))).model
    made = [random(model, step) for step in (1, 2)]
    write_run(folder / "run", results.plain(config), {1: made[0], 2: made[1]}, names=NAMES)
    fields = {**config.model.overrides.to_dict(), "num_classes": 12, "in_channels": 1}
    checkpoints.save_variables(folder / "converted", made[0], {"model": config.model.name, "overrides": fields, "classes": NAMES,
                                                               "preprocessing": {"mean": [0.5], "std": [0.5]}})
    safetensors.numpy.save_file(checkpoints.to_state_dict(model, made[0]), folder / "weights.safetensors")
    return folder, made


def fine_tuning(checkpoint, **options):
    """The tiny digits config, whose ten classes are some of the weights' twelve."""
    config = tiny("standard")
    config.init = {"checkpoint": str(checkpoint), "step": "best", "weights": "", "freeze": "", "head": "slice", **options}
    return config


def same(found, wanted, rows=slice(None)):
    """Assert equal leaves; of the head the `rows` of the wanted classes, or not at all for None."""
    found, wanted = flatten_dict(found["params"]), flatten_dict(wanted["params"])
    for path, x in wanted.items():
        if path[0] != "head":
            np.testing.assert_array_equal(found[path], x)
        elif rows is not None:
            np.testing.assert_array_equal(found[path], x[..., rows])


@pytest.mark.parametrize("place, options, step", [("run", {}, 0), ("run", {"step": "latest"}, 1), ("run", {"step": "2"}, 1), ("converted", {}, 0)])
def test_training_starts_from_every_place(places, capsys, place, options, step):
    folder, made = places
    config = base.complete(fine_tuning(folder / place, **options))
    same(build.build(config).variables, made[step], slice(10))
    assert capsys.readouterr().out == f"{folder / place}: head: 10 of the weights' 12 classes, by name\n"


def test_a_new_head_is_the_one_of_random_weights(places, capsys):
    folder, made = places
    run = build.build(base.complete(fine_tuning(folder / "weights.safetensors", head="new")))
    same(run.variables, made[0], None)
    fresh = run.classifier.init(build.keys(run.config)[0], run.train.image_shape)["params"]["head"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), run.variables["params"]["head"], fresh)
    assert capsys.readouterr().out.endswith("weights.safetensors: head: new, of 10 classes; the weights have 12\n")


@pytest.mark.parametrize("options, message", [
    ({"head": "keep"}, r'run \(vmamba_tiny .*does not fit VMamba.*head="new" or "slice"(.|\n)*2 misshapen: classifier.head.bias is \(12,\), expected \(10,\)'),
    ({"step": "7"}, "config.init.checkpoint: step=7"), ({"step": "newest"}, "config.init.step='newest': expected 'best', 'latest' or the number"),
    ({"head": "old"}, "config.init.head='old'"), ({"freeze": "stem"}, "config.init.freeze='stem'"),
    ({"checkpoint": "", "freeze": "backbone"}, "config.init.freeze='backbone': expected '' without config.init.checkpoint")])
def test_errors(places, tmp_path, options, message):
    with pytest.raises(cli.ConfigError, match=message):
        train.run(fine_tuning(**{"checkpoint": places[0] / "run"} | options), tmp_path / "run", progress=False)


@pytest.mark.slow
def test_commands_of_fine_tuning(places, tmp_path):
    """As a person types them: a linear probe with an average, and layer-wise rates, each from the folder of a run."""
    folder, made = places
    config = tiny("standard")
    common = ["experiments.train", "--config", "configs/digits.py:objective=standard", f"--config.init.checkpoint={folder / 'run'}", "--config.epochs=2",
              "--config.batch_size=256", "--config.validation.attack.steps=1", *(f"--config.model.overrides.{name}={value}" for name, value in
                                                                               config.model.overrides.to_dict().items())]
    probe = [*common, "--workdir", str(tmp_path / "probe"), "--config.init.head=new", "--config.init.freeze=backbone", "--config.ema_decay=0.5"]
    layers = [*common, "--workdir", str(tmp_path / "layers"), "--config.init.head=slice", "--config.optimizer.layer_decay=0.1", "--config.init.step=latest"]
    (first, said), (second, other) = run_programs([probe, layers])
    assert first == second == 0, said + other
    assert "head: new, of 10 classes; the weights have 12\n" in said and "head: 10 of the weights' 12 classes, by name\n" in other
    for weights in ("raw", "ema"):
        found = checkpoints.open_weights(tmp_path / "probe", checkpoint="latest", weights=weights).content
        same(found, made[0], None)
        assert np.abs(found["params"]["head"]["kernel"]).max() > 0.02
    found, before = checkpoints.open_weights(tmp_path / "layers", checkpoint="latest").content["params"], made[1]["params"]
    stem = np.abs(found["patch_embed"]["conv1"]["kernel"] - before["patch_embed"]["conv1"]["kernel"]).max()
    head = np.abs(found["head"]["kernel"] - before["head"]["kernel"][:, :10]).max()
    assert 0 < stem < 0.1 * head


@pytest.mark.parametrize("place", ["run", "converted", "weights.safetensors"])
def test_evaluation_of_every_place(places, tmp_path, monkeypatch, place):
    """The weights that an evaluation's logits are computed with."""
    folder, made = places
    config, given = tiny("standard"), []
    config.weights, config.model.overrides.num_classes = str(folder / place), 12
    monkeypatch.setattr(vmamba_jax, "logits_fn", lambda classifier, variables: given.append(variables) or forbidden())
    monkeypatch.setattr("experiments.common.classes.over_classes", lambda classifier, *_: classifier)
    with pytest.raises(AssertionError, match="done already"):
        evaluate.run(config, tmp_path, progress=False)
    same(given[0], made[0])


def test_prediction_of_a_run_on_a_set_of_one_size(places, tmp_path, capsys):
    """Gray images of 8 pixels, which the run's config names by its set alone."""
    folder, _ = places
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(tmp_path / "photo.png")
    status, out, err = run_command(commands.main, capsys, "predict", tmp_path / "photo.png", "--weights", folder / "run", "--json", "--top-k", 12)
    classes = json.loads(out)["classes"]
    assert (status, err) == (0, "") and {found["name"] for found in classes} == set(NAMES) and all(str(c["label"]) == c["name"] for c in classes)
    assert checkpoints.open_weights(folder / "run").preprocessing == {"mean": (0.5,), "std": (0.5,), "size": 8, "resize": 8}


def test_a_study_of_every_place(places):
    folder, made = places
    config = base.study()
    config.data = {"name": "digits", "root": "", "split": "test", "limit": 16, "options": {}}
    for entry, label in (("run", "run"), ("converted", "converted")):
        found = study_models.read(str(folder / entry), config)
        assert (found.label, found.facts["from"], found.facts["kind"]) == (label, str(folder / entry), "state space")
        same(found.variables, made[0])
    with pytest.raises(cli.ConfigError, match="model '.*weights.safetensors': .*expected the model's name before it, NAME@"):
        study_models.read(str(folder / "weights.safetensors"), config)


def test_weights_of_a_run_evaluate_as_the_run_itself(places, tmp_path, monkeypatch):
    folder, made = places
    config, given = tiny("standard"), []
    config.model.overrides.num_classes = 12
    monkeypatch.setattr(vmamba_jax, "logits_fn", lambda classifier, variables: given.append(variables) or forbidden())
    with pytest.raises(AssertionError, match="done already"):
        evaluate.run(config, folder / "run", "latest", progress=False)
    same(given[0], made[1])
    with pytest.raises(cli.ConfigError, match="no checkpoint here: expected a run's folder"):
        evaluate.run(config, tmp_path, progress=False)
