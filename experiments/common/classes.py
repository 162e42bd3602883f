"""The labels of a set by the names of its classes, as the weights that are evaluated number them."""
import dataclasses

from experiments.common import build
from experiments.common.cli import ConfigError, checking
from vmamba_jax import data
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.data.subsets import numbered
from vmamba_jax.evaluation import shifts


def trained_classes(config, loaded):
    """A source with the labels of the weights that the config trained: numbered by the training split's classes.

    It is unchanged if the set itself numbers its classes, or if there is no training split where the weights are evaluated.
    """
    options = config.data.options.to_dict()
    if config.data.name not in ("folder", "tar"):
        return loaded
    try:
        if config.data.name == "tar":
            names = build.source(config, "train").classes
        else:
            names = options.get("classes") or data.folder.class_folders("train", config.data.root or None, options.get("subdir"))[1]
    except (data.DataNotFoundError, ConfigError):
        return loaded
    with checking("config.data"):
        return data.match_classes(loaded, names)


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
