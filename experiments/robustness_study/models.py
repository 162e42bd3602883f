"""The models of a study: read, given their own view of the data, and identified by their weights."""
import dataclasses
import json
import pathlib

import jax
import numpy as np

import vmamba_jax
from configs import digits, saved
from experiments import train
from experiments.common import build, cli
from vmamba_jax import checkpoints, data, models, parallel, training
from vmamba_jax.models import Classifier

STATE_SPACE = (models.VMamba, models.Vim)
TRANSFORMERS = (models.ViT, models.Swin)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model that is studied.

    label: how the page calls it. classifier, variables: of `vmamba_jax.logits_fn`. source: the study's images as this model is to see them.
    facts: {"label", "family", "kind" ("state space", "transformer" or "convolution"), "parameters", "depths", "from", "weights": their digest}.
    released: the `Preprocessing` that a release's images get, or None.
    """
    label: str
    classifier: Classifier
    variables: dict
    source: data.Source
    facts: dict
    released: object = None


def trained(config, workdir, progress):
    """Train what config.train names, as configs/digits.py says, and return the runs' folders; finished ones stay."""
    labels = list(json.loads(config.train.to_json_best_effort()))  # a ConfigDict itself gives its names sorted
    for label in labels:
        recipe = digits.get_config("objective=standard")
        recipe.model = config.train[label]
        recipe.validation.update(every_epochs=recipe.epochs, limit=recipe.batch_size)
        train.run(recipe, workdir / "models" / label, progress=progress)
    return [str(workdir / "models" / label) for label in labels]


def read(entry, config):
    """The `Subject` of one entry of config.models: RUN, FOLDER, NAME@FOLDER or NAME@FILE. Raises ConfigError for what does not read."""
    name, _, path = entry.rpartition("@")
    folder = pathlib.Path(path)
    with cli.checking(f"model {entry!r}"):
        if (folder / "checkpoints").is_dir():
            run = saved.get_config(str(folder / "config.json"))
            source, label, released = view(config), folder.name, None
            classifier = build.classifier(run, source)
            variables = training.restore_variables(folder / "checkpoints", "best", ema=bool(run.get("ema_decay")))
        else:
            metadata = {}
            if folder.is_dir():
                variables, metadata = checkpoints.load_variables(folder)
                name = name or metadata["model"]
            if not name:
                raise ValueError("a released file needs its model's name before it, NAME@FILE")
            released = models.entry(name).preprocessing
            source, label = view(config, released), folder.name if folder.is_dir() else name
            model = vmamba_jax.create_model(name, **{"num_classes": len(source.classes)} | metadata.get("overrides", {}))
            mean, std = (metadata.get("preprocessing", {}).get(field) or getattr(released, field) for field in ("mean", "std"))
            classifier = Classifier(model, mean, std)
            if not folder.is_dir():
                variables = checkpoints.convert(classifier.model, checkpoints.read_torch(folder))
    return Subject(label, classifier, variables, source, facts(label, classifier.model, variables, path), released)


def view(config, released=None, section=None):
    """The study's images. released: the `Preprocessing` that says how a release saw them, where the config does not say it.

    section: another data section than config.data.
    """
    section = section or config.data
    options = section.options.to_dict()
    if released is not None and section.name in ("folder", "imagenet", "tar"):
        options = {"size": released.size, "resize": released.resize, "interpolation": released.interpolation} | options
    with cli.checking("config.data"):
        found = data.load(section.name, section.split, root=section.root or None, **options)
        return data.subset(found, min(section.limit, len(found)), seed=0) if section.limit else found


def facts(label, model, variables, origin):
    """What the page and the cells tell of a model."""
    kind = "state space" if isinstance(model, STATE_SPACE) else "transformer" if isinstance(model, TRANSFORMERS) else "convolution"
    depths = getattr(model, "depths", None) or getattr(model, "layers", None) or (getattr(model, "depth", None),)
    return {"label": label, "family": type(model).__name__, "kind": kind, "depths": [depth for depth in depths if isinstance(depth, int)], "from": origin,
            "parameters": int(sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"]))), "weights": parallel.fingerprint(variables)}


def description(classifier):
    """A classifier's own settings as JSON says them, the same in every process."""
    model = classifier.model
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.name not in ("parent", "name")}
    named = {"family": type(model).__name__, "mean": classifier.mean, "std": classifier.std, **fields}
    return json.loads(json.dumps(named, default=lambda value: getattr(value, "__name__", str(value))))
