"""The models of a study, each with the study's images as it expects them and a digest of its weights."""
import dataclasses
import json
import pathlib

import jax
import numpy as np

from configs import base, digits
from experiments.common import classes, cli, training
from vmamba_jax import checkpoints, data, models, parallel
from vmamba_jax.models import Classifier

STATE_SPACE = (models.VMamba, models.Vim)
TRANSFORMERS = (models.ViT, models.Swin)
FILES = ("folder", "imagenet", "tar")  # sets of files, which are resized and cropped


@dataclasses.dataclass(frozen=True)
class StudyModel:
    """A model of a study.

    Attributes:
        label: its name on the page.
        classifier, variables: arguments of `vmamba_jax.logits_fn`.
        source: the study's images with the model's own resize and crop.
        facts: {"label", "family", "kind" ("state space", "transformer" or "convolution"), "parameters", "depths", "from", "weights": their digest}.
        released: the `Preprocessing` of a released model; None for a trained run.
    """
    label: str
    classifier: Classifier
    variables: dict
    source: data.Source
    facts: dict
    released: object = None


def trained(config, workdir, progress):
    """Train the models of config.train by the recipe of configs/digits.py, and return the runs' folders; finished runs are not trained again."""
    labels = list(json.loads(config.train.to_json_best_effort()))  # in the config's order, which iterating a ConfigDict does not keep
    for label in labels:
        recipe = digits.get_config("objective=standard")
        recipe.model = config.train[label]
        recipe.validation.update(every_epochs=recipe.epochs, limit=recipe.batch_size)
        training.run(recipe, workdir / "models" / label, progress=progress)
    return [str(workdir / "models" / label) for label in labels]


def read(entry, config, checkpoint="best"):
    """The `StudyModel` of an entry of config.models at a checkpoint, see `checkpoints.open_weights`; a ConfigError if it cannot be read."""
    with cli.checking(f"model {entry!r}"):
        opened = checkpoints.open_weights(entry, checkpoint=checkpoint)
        return _trained_run(opened, config) if opened.kind == "run" else _released(opened, config)


def _trained_run(opened, config):
    folder = pathlib.Path(opened.path)
    run = base.complete(opened.config)
    if run.data.name == config.data.name and not config.data.root:
        classes.check_draw(run, folder, config.data.split)
    source = classes.trained_classes(run, view(config, run=run), folder)
    classifier = Classifier(opened.create_model(), tuple(run.preprocessing.mean), tuple(run.preprocessing.std))
    if classifier.model.num_classes != len(source.classes):
        classifier = classes.over_classes(classifier, source)
    return study_model(folder.name, classifier, opened, source)


def _released(opened, config):
    """A catalog model with weights that were not trained here."""
    made = opened.create_model()
    released = models.entry(opened.name).preprocessing
    source = classes.weights_classes(opened, view(config, released))
    classifier = Classifier(made, opened.preprocessing["mean"], opened.preprocessing["std"])
    classifier = classes.over_classes(classifier, source, "classes" in config.data.options)
    return study_model(opened.name if opened.kind == "file" else pathlib.Path(opened.path).name, classifier, opened, source, released)


def study_model(label, classifier, opened, source, released=None):
    variables = opened.variables(classifier, log=cli.report)
    return StudyModel(label, classifier, variables, source, facts(label, classifier.model, variables, opened.path), released)


def view(config, released=None, run=None):
    """The study's images.

    Args:
        config: the study's.
        released: `Preprocessing` with the size, resize and interpolation to use if config.data.options does not set them.
        run: config of a trained run, whose root and options are used where those of config.data are not set, if it was trained on the same kind of set.
    """
    section = config.data
    root, options = section.root, section.options.to_dict()
    if released is not None and section.name in FILES:
        options = {"size": released.size, "resize": released.resize, "interpolation": released.interpolation} | options
    own = run is not None and section.name in FILES and run.data.name == section.name
    if own:
        root, options = root or run.data.root, run.data.options.to_dict() | options
    with cli.checking("config.data"):
        found = data.load(section.name, section.split, root=root or None, **options)
        if own:
            classes.check_apart(run, found)
        return data.subset(found, min(section.limit, len(found)), seed=0) if section.limit else found


def facts(label, model, variables, origin):
    """`StudyModel.facts` of a model."""
    kind = "state space" if isinstance(model, STATE_SPACE) else "transformer" if isinstance(model, TRANSFORMERS) else "convolution"
    depths = getattr(model, "depths", None) or getattr(model, "layers", None) or (getattr(model, "depth", None),)
    return {"label": label, "family": type(model).__name__, "kind": kind, "depths": [depth for depth in depths if isinstance(depth, int)], "from": origin,
            "parameters": int(sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"]))), "weights": parallel.fingerprint(variables)}
