"""The corruptions that a config names, and sets of gray images as the corruptions take them."""
import numpy as np
from jax.tree_util import Partial

from vmamba_jax import data, evaluation
from vmamba_jax.core import checks
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.evaluation import corruptions

ALL = "all"


def names(text):
    """The corruptions of "fog+snow", of "all" (the fifteen of the benchmark) or of "" (none), as a tuple; ValueError for any other name."""
    if text == ALL:
        return corruptions.CORRUPTIONS
    found = tuple(filter(None, text.split("+")))
    for name in found:
        checks.choice("corruption", name, (ALL, *corruptions.FUNCTIONS))
    if ALL in found or len(set(found)) < len(found):
        raise ValueError(f"corruptions={text!r}: expected 'all', or different names joined by +")
    return found


def as_color(source, logits_fn):
    """(source, function of its images -> logits) with three channels: a gray image becomes the first channel of its corrupted color image."""
    if source.image_shape[-1] != 1:
        return source, logits_fn
    images, labels = source.gather(np.arange(len(source)))
    return data.Arrays(images.repeat(3, -1), labels, source.classes), Partial(_first_channel, logits_fn)


def summary(rows, source):
    """Figures over the rows of `evaluation.corruption_accuracy`.

    Returns:
        {"accuracy": mean over corruptions and severities, "mce": mean corruption error in percent, relative to AlexNet, None for another set than
        ImageNet's 1000 classes or without all fifteen corruptions at all severities}.
    """
    complete = {row["corruption"] for row in rows} == set(corruptions.CORRUPTIONS) and {row["severity"] for row in rows} == set(corruptions.SEVERITIES)
    ours = tuple(source.classes) == tuple(identifier for identifier, _ in imagenet.classes())
    mce = corruptions.mean_corruption_error(evaluation.corruption_errors(rows)) if complete and ours else None
    return {"accuracy": float(np.mean([row["accuracy"] for row in rows])), "mce": mce}


def _first_channel(logits_fn, images):
    return logits_fn(images[..., :1])
