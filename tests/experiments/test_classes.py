"""Labels by the names of folders: a validation split, an extra set, a trained run's and released weights' evaluation, and a study."""
import contextlib
import functools
import re

import jax
import numpy as np
import pytest
from PIL import Image

import vmamba_jax
from configs import base, digits, evaluate_weights
from configs import imagenet as imagenet_config
from experiments import train
from experiments.common import build, classes, results
from experiments.common import training as training_program
from experiments.common.cli import ConfigError
from experiments.robustness_study import models as study_models
from tests.helpers.tiny_runs import forbidden
from vmamba_jax import checkpoints, data, training
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.models import Classifier

FRUIT = ("apple", "banana", "cherry")
TINY = {"stem": "cifar", "stem_width": 4, "layers": (1,), "channels": (4,)}


def write(folder, names, n=3):
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name / f"{i}.png")


@pytest.fixture
def config(tmp_path):
    """A run on folders of three classes, whose validation has the last two and whose extra set has the last."""
    write(tmp_path / "set" / "train", FRUIT)
    write(tmp_path / "set" / "val", FRUIT[1:])
    write(tmp_path / "more" / "train", FRUIT[2:])
    config = digits.get_config("objective=standard")
    config.data = {"name": "folder", "root": str(tmp_path / "set"), "options": {"size": 8, "resize": 8}}
    config.model, config.preprocessing = {"name": "resnet18", "overrides": TINY}, {"mean": (0.5,), "std": (0.5,)}
    config.augment, config.batch_size = {"name": "none"}, 8
    config.extra = {"name": "folder", "root": str(tmp_path / "more"), "options": {"size": 8, "resize": 8}, "fraction": 0.5}
    return base.complete(config)


def test_all_splits_are_numbered_by_the_training_split(config):
    made = build.build(config)
    assert made.train.classes == made.validation.classes == FRUIT and made.classifier.model.num_classes == 3
    assert made.validation.labels.tolist() == [1, 1, 1, 2, 2, 2] and made.batches.source.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    evaluated = classes.trained_classes(config, build.source(config, "validation"))
    assert evaluated.classes == FRUIT and evaluated.labels.tolist() == [1, 1, 1, 2, 2, 2]


def test_a_class_that_training_lacks(config, tmp_path):
    write(tmp_path / "set" / "val", ["durian"])
    with pytest.raises(ConfigError, match="config.data.*classes=durian.*expected some of the 3 classes apple, banana, cherry"):
        build.build(config)
    with pytest.raises(ConfigError, match="classes=durian"):
        classes.trained_classes(config, build.source(config, "validation"))
    (tmp_path / "set" / "train").rename(tmp_path / "elsewhere")  # weights may be evaluated where the training images are not
    assert classes.trained_classes(config, build.source(config, "validation")).classes == ("banana", "cherry", "durian")


def test_head_of_another_number_of_classes_is_refused(config):
    """A set without names may lack its highest classes."""
    config.model.overrides.num_classes = 1000
    with pytest.raises(ConfigError, match=r"config.model.overrides.num_classes=1000: expected 3, the classes of the training images \(apple, banana, cherry\)"):
        build.build(config)
    numbers = base.complete(digits.get_config("objective=standard"))
    for count, accepted in ((10, True), (12, True), (9, False)):
        numbers.model.overrides.num_classes = count
        with contextlib.nullcontext() if accepted else pytest.raises(ConfigError, match="num_classes=9: expected 10"):
            build.check_head(numbers, tuple(map(str, range(10))))


def test_a_recipe_for_imagenet_takes_the_head_from_the_folders(config):
    """Three classes, three logits; the same config whose user wants 1000 is refused above."""
    made = imagenet_config.get_config("recipe=vmamba,model=resnet18,batch=8")
    made.data, made.transform.size, made.validation.limit = config.data, 8, 0
    made.model.overrides.update(TINY)
    assert "num_classes" not in made.model.overrides and build.classifier(made, build.source(made, "train")).model.num_classes == 3


def test_a_run_keeps_its_class_names(config, tmp_path, monkeypatch, capsys):
    """In classes.json at the start; an evaluation numbers its images by them where the training images are gone, and other folders cannot resume the run."""
    monkeypatch.setattr(training, "train", forbidden)
    monkeypatch.setattr(training_program, "LARGE", 0)
    with pytest.raises(AssertionError, match="done already"):
        train.run(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert "resnet18 on set: 9 training and 6 validation images, 3 classes (apple, banana, cherry)\n  steps      60 (30 epochs of 2)" in said
    assert re.search(r"compiling  the first step of \d+ parameters may take minutes on a CPU", said)
    assert data.load_class_names(tmp_path / "run") == FRUIT
    (tmp_path / "set" / "train").rename(tmp_path / "elsewhere")
    loaded = build.source(config, "validation")
    assert classes.trained_classes(config, loaded).labels.tolist() == [0, 0, 0, 1, 1, 1]
    found = classes.trained_classes(config, loaded, tmp_path / "run")
    assert found.classes == FRUIT and found.labels.tolist() == [1, 1, 1, 2, 2, 2]
    write(tmp_path / "set" / "train", [*FRUIT, "durian"])
    with pytest.raises(ConfigError, match="config.data: 4 classes, expected the 3 that the run in .* began with; they differ in durian"):
        train.run(config, tmp_path / "run", progress=False)


def test_a_draw_from_other_files_is_refused(config, tmp_path):
    """The test split of a folder without one: more files move trained images into it."""
    config.data.options.update(validation=0, test=0.34)
    made = build.source(config, "train")
    (tmp_path / "run").mkdir()
    results.save_json(tmp_path / "run" / "results.json", {"data": {"fingerprint": made.fingerprint[:16]}})
    classes.check_draw(config, tmp_path / "run", "test")
    write(tmp_path / "set" / "train", ["apple/more"])
    with pytest.raises(ConfigError, match="expected the files that the run in .* was trained on, since the split 'test' is drawn from them"):
        classes.check_draw(config, tmp_path / "run", "test")
    classes.check_draw(config, tmp_path / "run", "validation")
    classes.check_draw(config, tmp_path / "elsewhere", "test")


def released(tmp_path, names, count=1000, **options):
    write(tmp_path / "val", names, 1)
    config = base.complete(evaluate_weights.get_config("model=resnet18"))
    config.data.root = str(tmp_path)
    config.data.options.update(size=8, resize=8, **options)
    source = build.source(config, "validation")
    classifier = Classifier(vmamba_jax.create_model("resnet18", num_classes=count, **TINY))
    return source, classifier, classes.over_classes(classifier, source, "classes" in options)


def test_released_weights_on_some_classes(tmp_path):
    identifiers = [name for name, _ in imagenet.classes()]
    source, _, over = released(tmp_path, [identifiers[574], identifiers[3]])
    assert source.classes == (identifiers[3], identifiers[574]) and over.columns == (3, 574)
    assert build.description(over)["columns"] == [3, 574] and "columns" not in build.description(Classifier(over.model))


def test_released_weights_on_folders_by_number(tmp_path):
    """Folder names sort as text: "0", "10", "2"."""
    assert released(tmp_path, ["0", "2", "10"])[2].columns == (0, 10, 2)


def test_released_weights_on_other_classes(tmp_path):
    for k, (names, count, message) in enumerate(((FRUIT, 1000, "classes=apple, banana, cherry: expected WordNet identifiers"),
                                                   (["n01440764"], 1000, "classes=n01440764: expected at least two classes"),
                                                   (FRUIT, 5, r"config.data: 3 classes \(apple, banana, cherry, ...\), expected the 5 of the weights"))):
        with pytest.raises(ConfigError, match=message):
            released(tmp_path / str(k), names, count)
    _, classifier, over = released(tmp_path / "same", FRUIT, 3)
    assert over is classifier


def test_a_study_of_released_weights(tmp_path):
    write(tmp_path / "val", ["n01440764", "n03445777"], 1)
    config = base.study()
    config.data = {"name": "folder", "root": str(tmp_path), "split": "validation", "limit": 0, "options": {"size": 8, "resize": 8}}
    for count, columns in ((1000, (0, 574)), (2, None)):
        classifier = Classifier(vmamba_jax.create_model("resnet18", num_classes=count, **TINY))
        folder = tmp_path / str(count)
        leaves = jax.eval_shape(functools.partial(classifier.init, image_shape=(64, 64, 3)), jax.random.key(0))
        checkpoints.save_variables(folder, jax.tree.map(lambda leaf: np.zeros(leaf.shape), leaves), {"model": "resnet18", "overrides": dict(TINY)})
        found = study_models.read(str(folder), config)
        assert found.label == str(count)
        assert found.classifier.model.num_classes == count and found.classifier.columns == columns


def test_the_set_itself_may_number_its_classes():
    config = base.complete(digits.get_config("objective=standard"))
    source = build.source(config, "test")
    assert classes.trained_classes(config, source) is source and data.match_classes(source, source.classes) is source
