"""The one reader of weights: of a training run's folder, a converted folder, a released file, each alone or as NAME@PATH."""
import contextlib
import dataclasses
import logging
import pathlib

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vmamba_jax.checkpoints import examples, fine_tuning, store
from vmamba_jax.checkpoints.convert import convert_leaves, find, reassemble, shapes_in
from vmamba_jax.checkpoints.families import BY_MODEL
from vmamba_jax.checkpoints.torch_files.read import read_torch
from vmamba_jax.core import files
from vmamba_jax.core.run_folder import RemotePath, run_folder
from vmamba_jax.core.saved_steps import step_folders
from vmamba_jax.core.saved_steps.reader import open_steps
from vmamba_jax.data.class_names import dense_class_names, load_class_names
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.models import catalog
from vmamba_jax.models.classifier import Classifier
from vmamba_jax.models.dense.layers import OverBackbone
from vmamba_jax.models.dense.mask_rcnn import MaskRCNN
from vmamba_jax.models.dense.upernet import UperNet

CONFIG, STEPS = "config.json", "checkpoints"  # of a run's folder
EMA = {None: None, "ema": True, "raw": False}  # of a run, by `weights`
VIEW = ("size", "resize", "interpolation", "exif")  # of a photo
SIDES = {"digits": 8, "mnist": 28, "cifar10": 32, "tiny_imagenet": 64}  # pixels of the images of sets of one size


@dataclasses.dataclass(frozen=True)
class WeightsSource:
    """Weights with what their place says of them; made by `open_weights`.

    Attributes:
        path: of the folder or file.
        kind: "run", "converted" or "file".
        content: Flax variables of numpy arrays; of a file, what `read_torch` returns.
        name: catalog name of the model; None: not known, as for a file alone.
        overrides: fields of the model besides the catalog's.
        classes: names of the classes in label order; None: not known.
        preprocessing: of "mean", "std", "size", "resize", "interpolation" and "exif" those that are known.
        step: of a run; None for the others.
        config: of a run; {} for the others.
        metadata: of a converted folder; {} for the others.
        weights: the set of weights asked for, see `open_weights`.
    """
    path: str
    kind: str
    content: dict = dataclasses.field(repr=False)
    name: str | None = None
    overrides: dict = dataclasses.field(default_factory=dict)
    classes: tuple | None = None
    preprocessing: dict = dataclasses.field(default_factory=dict)
    step: int | None = None
    config: dict = dataclasses.field(default_factory=dict, repr=False)
    metadata: dict = dataclasses.field(default_factory=dict, repr=False)
    weights: str | None = None

    def create_model(self, **overrides):
        """The Linen module of these weights; its classes and image channels are those of the arrays, unless fields say otherwise.

        Args:
            overrides: further fields of the module.

        Raises:
            ValueError: the place does not name the model.
        """
        if self.name is None:
            raise ValueError(f"{self.path}: expected the model's name before it, NAME@{self.path}; python -m vmamba_jax.checkpoints inspect guesses it")
        fields = self.overrides | overrides
        model = catalog.create_model(self.name, **fields)
        sizes = {field: n for field, n in self.sizes(model).items() if field not in fields}
        if isinstance(model, OverBackbone) and (channels := sizes.pop("in_channels", None)) and "in_channels" not in fields.get("backbone", {}):
            sizes["backbone"] = model.backbone.clone(in_channels=channels)
        return model.clone(**sizes)

    def sizes(self, model):
        """{"num_classes": ..., "in_channels": ...} of the arrays, read as those of `model`'s family; without what they lack."""
        head, stem = fine_tuning.logits_paths(model), fine_tuning.images_path(model)
        if self.kind == "file":
            shapes = shapes_in(model, self.content, self.weights)
        else:
            shapes = {path: np.shape(x) for path, x in flatten_dict(self.content).items()}
        extra = isinstance(model, MaskRCNN)  # its classification has the background too
        found = {"num_classes": shapes[head[0]][-1] - extra} if head and head[0] in shapes else {}
        return found | ({"in_channels": shapes[stem][2]} if stem in shapes else {})

    def class_names(self, count):
        """Names of the `count` classes: the source's own, or those of the set that models of this kind are released for; None: not known.

        Released names: ImageNet's (identifier, names) for 1000, ADE20K's for 150 of a segmenter, COCO's for 80 of a detector.
        """
        if self.classes is not None:
            return self.classes if len(self.classes) == count else None
        if self.kind == "run":
            return None
        family = None if self.name is None else catalog.entry(self.name).family
        known = dense_class_names("ade20k") if family is UperNet else dense_class_names("coco") if family is MaskRCNN else imagenet.classes()
        return known if len(known) == count else None

    def variables(self, model, head="keep", *, classes=None, key=None, log=None):
        """The variables of `model`; arguments and errors as for `read_variables`."""
        inner = model.model if isinstance(model, Classifier) else model
        if type(inner) not in BY_MODEL and self.kind != "file" and head == "keep":
            return self.content  # a module of someone's own, whose names and shapes are not known here
        try:
            loose = fine_tuning.loose(inner, head)
            if self.kind == "file":
                leaves, _, resized = convert_leaves(inner, self.content, self.weights, loose)
            else:
                leaves, resized = reassemble(inner, flatten_dict(self.content), loose)
            head_shape = next((np.shape(leaves[path]) for path in fine_tuning.head_paths(inner) if path in leaves), (0,))
            leaves, said = fine_tuning.adapt(inner, leaves, head, classes=classes, known=self.class_names(head_shape[-1]), key=key)
        except (TypeError, ValueError) as error:
            error.args = (f"{self._described()}: {error}", *error.args[1:])
            raise
        for line in fine_tuning.resized_lines(resized, leaves) + said:
            (log or logging.getLogger(__name__).warning)(f"{self.path}: {line}")
        return unflatten_dict(leaves)

    def _described(self):
        """"weights.pth", or "runs/own (deit_tiny with depth=1)"."""
        if self.kind == "file" or self.name is None:
            return self.path
        fields = ", ".join(f"{key}={value}" for key, value in self.overrides.items())
        return f"{self.path} ({self.name}{f' with {fields}' if fields else ''})"


def read_variables(model, path, head="keep", *, weights=None, checkpoint="best", classes=None, key=None, log=None):
    """The variables of `model` from any place of weights.

    Every adaptation is logged in one line. Position embeddings and relative position tables of another image size are resized bicubically, whatever
    `head` is.

    Args:
        model: a Linen module of `vmamba_jax.models`, or a `Classifier` around one. For another module, only folders and head="keep" are
            supported, and the arrays are not compared with the module's.
        path: see `open_weights`.
        head: "keep": weights of the model's classes and image channels, anything else is an error. "new": the head is initialized from `key`.
            "slice": the head has the rows of `classes`. With "new" and "slice", the kernel that reads the images is adapted to other channels
            by timm's rule: the sum for one channel; else repeated in turn and scaled, so that equal channels give the same result.
        weights, checkpoint: see `open_weights`.
        classes: names of the model's classes in label order, for head="slice": names as the run's folder has them, or for weights of ImageNet-1k
            WordNet identifiers, label numbers or names.
        key: random key of a new head, which is that of `model.init(key, ...)`; None: `jax.random.key(0)`.
        log: function called with each line; None: a warning of the logger "vmamba_jax.checkpoints.source".

    Returns:
        {"params": ..., "batch_stats": ... where the model has it}.

    Raises:
        FileNotFoundError, ValueError: as `open_weights`.
        MisfitError: weights of other names or shapes than the model's, a ValueError.
        TypeError: a model without a conversion.
    """
    return open_weights(path, checkpoint=checkpoint, weights=weights).variables(model, head, classes=classes, key=key, log=log)


def open_weights(path, *, checkpoint="best", weights=None):
    """The `WeightsSource` at a path; the arrays are read, nothing else is.

    Args:
        path: a training run's folder, a folder of `save_variables`, a released file (.pth, .pt, .bin, .safetensors, .index.json), or the name of an
            example model, see `example`; NAME@PATH names the catalog model, which a file alone does not.
        checkpoint: of a run: "best" on its validation split, "latest", or a step as a number or its digits. Not used for others.
        weights: "ema": averaged weights; "raw"; of a file also the name of one of several sets, see `convert`; None: the averaged weights if
            there are any, else the others.

    Raises:
        FileNotFoundError: there is nothing at the path.
        KeyError: NAME is no model of the catalog.
        ValueError: a damaged or foreign folder or file, or one without the checkpoint or the set of weights.
    """
    name, path = split_name(path)
    place = run_folder(path)
    if name is not None:
        catalog.entry(name)
    if not place.exists() and path in examples.names():
        place = examples.folder(path)
    if not place.exists():
        raise FileNotFoundError(f"{path}: No such file or folder: expected a run's folder, a folder of converted weights, a file of weights, or one of "
                                f"the example models {', '.join(examples.names())}")
    if (steps := steps_folder(place)) is not None:
        found = _run(place, steps, int(checkpoint) if str(checkpoint).isdecimal() else checkpoint, weights)
    elif isinstance(place, RemotePath) or (place.is_dir() and not (place / store.METADATA).is_file()):
        raise FileNotFoundError(f"{path}: no checkpoint here: expected a run's folder, with checkpoints/, or one of converted weights, with metadata.json")
    elif place.is_dir():
        found = _converted(place, weights)
    else:
        found = WeightsSource(path, "file", read_torch(path), weights=weights)
    if name is None:
        return found
    own = _normalizer(name, found) if found.kind == "file" else found.preprocessing
    return dataclasses.replace(found, name=name, preprocessing=_released_view(name) | own)


def _released_view(name):
    """The catalog's preprocessing of a model, as `WeightsSource.preprocessing`."""
    entry = catalog.entry(name).preprocessing
    return {key: getattr(entry, key) for key in ("mean", "std", *VIEW) if hasattr(entry, key)}


def _normalizer(name, opened):
    """{"mean", "std"} that a file stores beside the weights of a catalog model; {} if it has none or does not fit."""
    with contextlib.suppress(TypeError, ValueError):  # reading the weights raises the same error, with its place
        found = find(catalog.create_model(name), opened.content, opened.weights)
        return {"mean": found.mean, "std": found.std} if found.mean and found.std else {}
    return {}


def example(name):
    """A small trained model that comes with the package, ready to be attacked or fine-tuned.

    Args:
        name: one of `checkpoints.examples.names()`, such as "vmamba_digits_robust"; `checkpoints.examples.card(name)` says what is known of it.

    Returns:
        (`Classifier`, variables): images are (B, 8, 8, 1) float32 in [0, 1] for the digits' models.

    Raises:
        ValueError: an unknown name.
    """
    opened = open_weights(str(examples.folder(name)))
    model = opened.create_model()
    return Classifier(model, opened.preprocessing["mean"], opened.preprocessing["std"]), opened.variables(model)


def split_name(text):
    """(catalog name or None, path) of NAME@PATH or PATH; a path that exists is one, whatever its name."""
    text = str(text)
    name, at, path = text.partition("@")
    return (name, path) if at and name and "/" not in name and not pathlib.Path(text).exists() else (None, text)


def steps_folder(place):
    """The folder of a run's saved steps: `place`/checkpoints, or `place` itself; None if it is neither."""
    for folder in (place / STEPS, place):
        if (folder / step_folders.ABOUT).is_file():
            return folder
    return None


def _run(place, steps, checkpoint, weights):
    if weights not in EMA:
        raise ValueError(f"weights={weights!r}: expected None, 'ema' or 'raw' for a run, {place}")
    folder = steps.parent if steps != place else place if (place / CONFIG).is_file() else place.parent
    with open_steps(steps) as saved:
        while True:
            step = saved.find(checkpoint)
            try:
                variables = saved.restore_variables(step, ema=EMA[weights])
                break
            except FileNotFoundError:  # the run that still trains has replaced it meanwhile
                if checkpoint == step:
                    raise
        config = files.read_json(folder / CONFIG) or saved.config or {}
    model, data = config.get("model") or {}, config.get("data") or {}
    side = SIDES.get(data.get("name"))
    options = ({} if side is None else {"size": side, "resize": side}) | (data.get("options") or {})
    view = {key: options[key] for key in VIEW if options.get(key) is not None}
    return WeightsSource(str(place), "run", variables, model.get("name"), dict(model.get("overrides") or {}), load_class_names(folder),
                         {key: tuple(x) for key, x in (config.get("preprocessing") or {}).items()} | view, step, config, weights=weights)


def _converted(place, weights):
    if weights is not None:
        raise ValueError(f"weights={weights!r}: expected None for converted weights, {place}")
    variables, metadata = store.load_variables(place)
    own = {key: tuple(x) for key, x in (metadata.get("preprocessing") or {}).items() if key in ("mean", "std") and x}
    own |= {key: x for key, x in (metadata.get("preprocessing") or {}).items() if key in VIEW}
    names = metadata.get("classes")
    found = WeightsSource(str(place), "converted", variables, metadata.get("model"), dict(metadata.get("overrides") or {}),
                          None if names is None else tuple(names), own, metadata=metadata)
    if found.name is None:
        return found
    return dataclasses.replace(found, preprocessing=_released_view(found.name) | own)
