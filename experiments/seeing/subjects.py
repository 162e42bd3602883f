"""The models of an analysis: the weights of each entry, and where asked for those before training and of a run's other checkpoints."""
import dataclasses
import pathlib

import jax

import vmamba_jax
from configs import base
from experiments.common import build, cli
from experiments.robustness_study import models
from vmamba_jax import checkpoints, parallel
from vmamba_jax.checkpoints.source import steps_folder
from vmamba_jax.core.saved_steps.reader import SavedSteps
from vmamba_jax.models import Classifier, catalog

BEFORE, ALL = "initial", "all"  # entries of config.steps that are no numbers


def read(entry, config):
    """[(`StudyModel`, whether all parts apply), ...] of an entry of config.models.

    The first has the entry's weights; the others, of a run, those before training and at other checkpoints, as config.steps says, and only receptive
    field and statistics.

    Args:
        entry: as for `checkpoints.open_weights`, or a catalog name alone: random weights from config.seed.
        config: with every key of `configs.base.analysis`.

    Raises:
        ConfigError: an entry that cannot be read.
    """
    if entry in catalog.list_models() and not pathlib.Path(entry).exists():
        return [(_random(entry, config), True)]
    with cli.checking(f"model {entry!r}"):
        opened = checkpoints.open_weights(entry)
        if opened.kind != "run":
            return [(_released(opened, config), True)]
        found = [(models.read(entry, config), True)]
        steps = steps_folder(pathlib.Path(opened.path))
        with SavedSteps(steps) as saved:
            numbers, best, settings = list(saved.steps), saved.find("best"), saved.config
    if BEFORE in config.steps:
        found.append((_before_training(found[0][0], settings), False))
    wanted = numbers if ALL in config.steps else [int(step) for step in config.steps if step != BEFORE]
    for step in wanted:
        if step != best:
            other = models.read(entry, config, step)
            found.append((_named(other, f"{other.label}, step {step}", other.variables), False))
    return found


def _released(opened, config):
    """Weights that were not trained here, on photos of any classes: no part has use for labels."""
    made = opened.create_model()
    released = catalog.entry(opened.name).preprocessing
    classifier = Classifier(made, opened.preprocessing["mean"], opened.preprocessing["std"])
    label = opened.name if opened.kind == "file" else pathlib.Path(opened.path).name
    return models.study_model(label, classifier, opened, models.view(config, released), released)


def _random(name, config):
    released = catalog.entry(name).preprocessing
    source = models.view(config, released)
    with cli.checking(f"model {name!r}"):
        if source.image_shape is None:
            raise ValueError("config.data.options: expected an option that sets the image size, such as size=224")
        classifier = Classifier(vmamba_jax.create_model(name), released.mean, released.std)
        variables = classifier.init(build.keys(config)[0], source.image_shape)
    label = f"{name}, random weights"
    return models.StudyModel(label, classifier, variables, source, models.facts(label, classifier.model, variables, "random weights"), released)


def _before_training(model, settings):
    """The same model with the random weights with which its run began."""
    settings = base.complete(settings)
    variables = model.classifier.init(jax.random.split(jax.random.key(settings.seed))[0], model.source.image_shape)
    return _named(model, f"{model.label}, before training", variables)


def _named(model, label, variables):
    facts = model.facts | {"label": label, "weights": parallel.fingerprint(variables)}
    return dataclasses.replace(model, label=label, variables=variables, facts=facts)
