"""The labels of a set by the names of its classes, as the weights that are evaluated number them."""
import dataclasses

import jax

from experiments.common import build, results
from experiments.common.cli import ConfigError, checking
from vmamba_jax import data
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.data.subsets import numbered
from vmamba_jax.evaluation import shifts


def trained_classes(config, loaded, folder=None):
    """A source with the labels of the weights that the config trained: numbered by the training split's classes.

    Args:
        config: of the run.
        loaded: the source.
        folder: the run's, whose saved class names count; None, or a folder of an earlier version without them: those of the training images
            where they are, or of the set itself.

    Raises:
        ConfigError: the source has other classes than the training split.
    """
    with checking():
        names = None if folder is None else data.load_class_names(folder)
    if names is None and config.data.name in ("folder", "tar"):
        names = _training_classes(config)
    with checking("config.data"):
        return loaded if names is None else data.match_classes(loaded, names)


def weights_classes(opened, loaded):
    """A source with the labels of weights that name their classes, such as another run's; unchanged for others.

    Args:
        opened: `checkpoints.open_weights` of them.
        loaded: the source.

    Raises:
        ConfigError: the source has classes that the weights lack.
    """
    with checking("config.data"):
        return loaded if opened.classes is None else data.match_classes(loaded, opened.classes)


def _training_classes(config):
    """Names of the training split's classes; None if there is no training split here."""
    options = config.data.options.to_dict()
    try:
        if config.data.name == "tar":
            return build.source(config, "train").classes
        return options.get("classes") or data.folder.class_folders("train", config.data.root or None, **_split_options(options))[1]
    except (data.DataNotFoundError, ConfigError):
        return None


def save_classes(workdir, names):
    """Save the class names of a run, or check that they are those that it began with: other names would number its labels anew."""
    with checking():
        before = data.load_class_names(workdir)
    if before is not None and before != tuple(names):
        changed = sorted(set(before) ^ set(names)) or names
        raise ConfigError(f"config.data: {len(names)} classes, expected the {len(before)} that the run in {workdir} began with; they differ in "
                          f"{', '.join(changed[:5])}{', ...' * (len(changed) > 5)}; restore them or choose another --workdir")
    if before is None and jax.process_index() == 0:
        data.save_class_names(workdir, names)


def check_draw(config, workdir, split):
    """ConfigError if a split that is drawn from a folder's training images is not the draw that the run in `workdir` left out.

    Another set of files gives another draw, which may hold images that the run was trained on.
    """
    where = _split_options(config.data.options)
    trained = (results.load_json(workdir / "results.json") or {}).get("data", {}).get("fingerprint")
    if config.data.name != "folder" or trained is None:
        return
    with checking("config.data"):
        drawn = data.folder.is_drawn(split, config.data.root or None, **where)
    if drawn and build.source(config, "train").fingerprint[:16] != trained:
        raise ConfigError(f"config.data.root={config.data.root}: expected the files that the run in {workdir} was trained on, since the split {split!r} is "
                          "drawn from them; to evaluate other images, put them into a folder of that split")


def check_apart(config, loaded):
    """ConfigError if a source has files that the config's run was trained on, since its split is drawn by other shares."""
    if config.data.name != "folder" or not hasattr(loaded, "files"):
        return
    try:
        trained = build.source(config, "train")
    except ConfigError:  # no training images here
        return
    if trained.folder.samefile(loaded.folder) and (both := set(trained.files) & set(loaded.files)):
        raise ConfigError(f"config.data: {len(both)} of the {len(loaded)} images of the split {loaded.split!r} are training images of the run, such as "
                          f"{min(both)}; expected data.options.validation={config.data.options.get('validation', 0)} and "
                          f"data.options.test={config.data.options.get('test', 0)}, those of the run")


def over_classes(classifier, source, ordered=False):
    """The classifier of released weights with the logits of the source's classes, in its label order.

    Args:
        classifier: of ImageNet's 1000 classes, or of as many as the source.
        source: images in folders named by WordNet identifiers or label numbers.
        ordered: whether the config lists the classes in label order.

    Raises:
        ConfigError: the source's classes are not among the classifier's.
    """
    names, count = source.classes, classifier.model.num_classes
    if (numbered(names) and len(names) <= count) or (ordered and len(names) == count):
        return classifier
    if count != len(imagenet.classes()):
        if len(names) != count:
            raise ConfigError(f"config.data: {len(names)} classes ({', '.join(names[:3])}, ...), expected the {count} of the weights")
        return classifier
    with checking("config.data"):
        columns = shifts.columns_of(names)
    return classifier if columns == tuple(range(count)) else dataclasses.replace(classifier, columns=columns)


def _split_options(options):
    """Those of the data set's options that say where its splits are."""
    return {name: options[name] for name in ("subdir", "validation", "test") if name in options}
