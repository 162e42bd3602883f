"""A folder of one's own photos through the programs: the config, a run whose weights are random, its evaluation and its study.

`test_own_folder_commands.py` types the commands of docs/own_data.md.
"""
import json
import shutil

import ml_collections
import numpy as np
import pytest

import vmamba_jax
from configs import base, folder, imagenet, robustness_study
from experiments import evaluate, study
from experiments.common import build, cli, results
from experiments.common.schedule import Lengths
from experiments.robustness_study import models as study_models
from tests.helpers import weight_places
from tests.helpers.photos import CLASSES, write_photos
from vmamba_jax import data, evaluation, models, reports

TINY = {"stem": "cifar", "stem_width": 4, "layers": (1,), "channels": (4,)}
NAMES = tuple(CLASSES)


def run_config(root):
    config = folder.get_config("model=resnet18,size=32,batch=8")
    config.data.root, config.model.overrides = str(root), TINY
    config.evaluation.skip_attacks, config.evaluation.batch_size = True, 8
    return base.complete(config)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(folder of thirty photos without splits, folder of a run on them whose weights are random, its variables)."""
    root, workdir = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("runs") / "own"
    write_photos(root / "photos", flat=True, side=40)
    config = run_config(root / "photos")
    train = build.source(config, "train")
    variables = weight_places.random(build.classifier(config, train).model)
    weight_places.write_run(workdir, results.plain(config), {1: variables}, names=train.classes)
    results.save_json(workdir / "results.json", {"data": {"fingerprint": train.fingerprint[:16]}})
    return root / "photos", workdir, variables


def test_config_of_a_folder_builds(place):
    made = build.build(run_config(place[0]))
    assert made.train.classes == NAMES and made.classifier.model.num_classes == 3 and made.variables is None
    assert [len(made.train), len(made.validation), len(build.source(made.config, "test"))] == [18, 6, 6]
    assert not set(made.train.files) & set(made.validation.source.files) and made.steps == 60
    image = np.asarray(made.batches[0]["image"])
    assert image.shape == (8, 32, 32, 3) and image.std() > 0.05


@pytest.mark.parametrize("name, size, fields", [("deit_tiny", 0, {}), ("deit_tiny", 64, {"image_size": 64}), ("vmamba_tiny", 64, {"image_size": 64}), ("resnet50", 64, {})])
def test_image_size_of_a_model(name, size, fields):
    """A model with a field for the image size gets it, if it is not the catalog's."""
    config = folder.get_config(f"model={name},size={size}")
    p = models.entry(name).preprocessing
    assert config.model.overrides.to_dict() == fields and config.data.options.size == config.transform.size == (size or p.size)
    assert config.data.options.resize == (size or p.size) * p.resize // p.size and vmamba_jax.create_model(name, **fields)


def test_options_that_a_config_lacks_can_be_set():
    """On the command line; those of text stay text, those of another type are refused."""
    config = imagenet.get_config("model=resnet18")
    with config.data.options.unlocked():
        config.data.options.file = "a.tar"
    given = ["validation=0.2", "subdir=.", "size=32", "file=7", "classes=('a','b')"]
    cli.override(config, [cli.OVERRIDE.fullmatch(f"--config.data.options.{each}") for each in given])
    found = config.data.options
    assert (found.validation, found.subdir, found.size, found.file, found.classes) == (0.2, ".", 32, "7", ("a", "b"))
    with pytest.raises(cli.ConfigError, match="--config.data.options.size=large: "):
        cli.override(config, [cli.OVERRIDE.fullmatch("--config.data.options.size=large")])


def test_schedule_is_printed_in_steps_and_epochs():
    config = folder.get_config("objective=pgd_at")
    text = Lengths.of(config, 600).text(config)
    assert text.splitlines() == [
        "  steps      600 (30 epochs of 20), 16 images each", "  warm-up    60 updates, 3 epochs: learning rate 0 to 0.0003",
        "  cosine     540 updates, 27 epochs: learning rate 0.0003 to 0", "  cool-down  none", "  ramp       120 steps, 6 epochs: attack radius from 0"]
    config.epochs = 3  # shares follow
    assert (Lengths.of(config, 60).warmup, Lengths.of(config, 60).ramp) == (6, 12)


def test_evaluation_of_a_run(place, tmp_path):
    """Corruptions and calibration on the test split; the same figures where the images for training are gone, and as another folder's weights."""
    photos, workdir, variables = place
    shutil.copytree(workdir, tmp_path / "run")
    config = run_config(photos)
    config.evaluation.corruptions, config.evaluation.calibration.bins = {"names": "contrast", "severities": (3,)}, 5
    content = evaluate.run(config, tmp_path / "run", progress=False)
    source = build.source(config, "test")
    logits_fn = vmamba_jax.logits_fn(build.classifier(config, source), variables)
    assert content["accuracy"] == evaluation.accuracy(logits_fn, source, batch_size=8)["accuracy"] and content["examples"] == 6
    assert [row["severity"] for row in content["corruptions"]["rows"]] == [3] and content["corruptions"]["mce"] is None and len(content["calibration"]["bins"]) == 5
    assert "corruption" in reports.tables.text([reports.read_run(tmp_path / "run")])
    for name in source.files:
        (tmp_path / "moved" / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / name, tmp_path / "moved" / "test" / name)
    shutil.rmtree(tmp_path / "moved" / "test" / "flower")  # labels keep the run's numbers
    config.data.root = str(tmp_path / "moved")
    fewer = evaluate.run(config, tmp_path / "run", progress=False)
    expected = evaluation.accuracy(logits_fn, data.subset(source, np.flatnonzero(source.labels > 0)), batch_size=8)["accuracy"]
    assert fewer["accuracy"] == expected and fewer["examples"] == 4
    config.weights = str(workdir)
    assert evaluate.run(config, tmp_path / "others", progress=False)["accuracy"] == expected


def test_evaluation_of_a_folder_with_more_photos_is_refused(place, tmp_path):
    photos, workdir, _ = place
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copy(photos / "sky" / "sky_000.jpg", tmp_path / "photos" / "sky" / "more.jpg")
    with pytest.raises(cli.ConfigError, match="expected the files that the run in .* was trained on, since the split 'test' is drawn from them"):
        evaluate.run(run_config(tmp_path / "photos"), workdir, progress=False)


def study_config(workdir, **options):
    config = robustness_study.get_config(f"data=folder,pixels=32,models={workdir},probes=clean+corruption_contrast")
    config.batch_size, config.probes.corruption_contrast.severities = 8, (3,)
    with config.data.options.unlocked():
        config.data.options.update(options)
    return config


def test_study_of_a_run(place, tmp_path, capsys):
    """Root, size and draw are the run's own; the figures are the evaluation's."""
    photos, workdir, variables = place
    config = study_config(workdir)
    study.main(config, tmp_path, False)
    content = json.loads((tmp_path / "study.json").read_text())
    assert [line["status"] for line in content["cells"]] == ["done", "done"] and content["data"]["examples"] == 6 and content["data"]["classes"] == 3
    source = build.source(run_config(photos), "test")
    logits_fn = vmamba_jax.logits_fn(build.classifier(run_config(photos), source), variables)
    clean, = reports.read_study(tmp_path).rows("own", "clean")
    assert clean["accuracy"] == evaluation.accuracy(logits_fn, source, batch_size=8)["accuracy"]
    assert "cells: 2 done" in capsys.readouterr().out


def test_study_on_training_images_is_refused(place):
    """Another draw than the run's."""
    config = study_config(place[1], test=0.5)
    with pytest.raises(cli.ConfigError, match=r"images of the split 'test' are training images of the run, such as .*expected data.options.validation=0.2"):
        study_models.read(str(place[1]), config)


def test_released_weights_of_other_classes_compute_nothing(place, tmp_path):
    """Exit status 2 with the reason, where 1000 logits would meet the labels 0, 1 and 2."""
    photos, _, _ = place
    variables = weight_places.random(vmamba_jax.create_model("resnet18", **TINY))
    vmamba_jax.checkpoints.save_variables(tmp_path / "weights", variables, {"model": "resnet18", "overrides": TINY})
    config = ml_collections.ConfigDict(study_config(tmp_path / "weights").to_dict())
    config.data.root = str(photos)
    with pytest.raises(cli.RunError, match="none of the 2 cells was computed: .*classes=flower, roof, sky: expected WordNet identifiers"):
        study.main(config, tmp_path / "study", False)
