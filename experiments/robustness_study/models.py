"""The models of a study, each with the study's images as it expects them and a digest of its weights."""
import dataclasses
import json
import pathlib

import jax
import numpy as np

import vmamba_jax
from configs import digits, saved
from experiments.common import build, classes, cli, training
from vmamba_jax import checkpoints, data, models, parallel
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.models import Classifier
from vmamba_jax.training import restore_variables

STATE_SPACE = (models.VMamba, models.Vim)
TRANSFORMERS = (models.ViT, models.Swin)


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


def read(entry, config):
    """The `StudyModel` of an entry of config.models: RUN, FOLDER, NAME@FOLDER or NAME@FILE; a ConfigError if it cannot be read."""
    name, _, path = entry.rpartition("@")
    folder = pathlib.Path(path)
    with cli.checking(f"model {entry!r}"):
        if (folder / "checkpoints").is_dir():
            return _trained_run(folder, config)
        if folder.is_dir():
            variables, metadata = checkpoints.load_variables(folder)
            name = name or metadata["model"]
            return _released(name, variables, folder.name, path, config, metadata)
        if not name:
            raise ValueError("expected the model's name before a released file, NAME@FILE")
        return _released(name, None, name, path, config)


def _trained_run(folder, config):
    run = saved.get_config(str(folder / "config.json"))
    source = classes.trained_classes(run, view(config), folder)
    classifier = build.classifier(run, source)
    variables = restore_variables(folder / "checkpoints", "best", ema=bool(run.ema_decay))
    return StudyModel(folder.name, classifier, variables, source, facts(folder.name, classifier.model, variables, str(folder)))


def _released(name, variables, label, path, config, metadata=None):
    """A catalog model with the given variables, or with those of the released file at `path` if they are None."""
    fields = {"overrides": {}, "preprocessing": {}} | (metadata or {})
    released = models.entry(name).preprocessing
    source = view(config, released)
    state = checkpoints.read_torch(path) if variables is None else None
    if "num_classes" not in fields["overrides"]:
        fields["overrides"] = {"num_classes": _classes(source, variables if state is None else state)} | fields["overrides"]
    model = vmamba_jax.create_model(name, **fields["overrides"])
    own = {"mean": released.mean, "std": released.std} | {key: value for key, value in fields["preprocessing"].items() if value}
    classifier = classes.over_classes(Classifier(model, own["mean"], own["std"]), source, "classes" in config.data.options)
    if variables is None:
        variables = checkpoints.convert(model, state)
    return StudyModel(label, classifier, variables, source, facts(label, model, variables, path), released)


def _classes(source, weights):
    """Number of classes of weights: ImageNet's if some bias has that length, else the source's."""
    count = len(imagenet.classes())
    return count if any(np.shape(leaf) == (count,) for leaf in jax.tree.leaves(weights)) else len(source.classes)


def view(config, released=None):
    """The study's images.

    Args:
        config: the study's.
        released: `Preprocessing` with the size, resize and interpolation to use if config.data.options does not set them.
    """
    section = config.data
    options = section.options.to_dict()
    if released is not None and section.name in ("folder", "imagenet", "tar"):
        options = {"size": released.size, "resize": released.resize, "interpolation": released.interpolation} | options
    with cli.checking("config.data"):
        found = data.load(section.name, section.split, root=section.root or None, **options)
        return data.subset(found, min(section.limit, len(found)), seed=0) if section.limit else found


def facts(label, model, variables, origin):
    """`StudyModel.facts` of a model."""
    kind = "state space" if isinstance(model, STATE_SPACE) else "transformer" if isinstance(model, TRANSFORMERS) else "convolution"
    depths = getattr(model, "depths", None) or getattr(model, "layers", None) or (getattr(model, "depth", None),)
    return {"label": label, "family": type(model).__name__, "kind": kind, "depths": [depth for depth in depths if isinstance(depth, int)], "from": origin,
            "parameters": int(sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"]))), "weights": parallel.fingerprint(variables)}
