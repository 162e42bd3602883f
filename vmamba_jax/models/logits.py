"""From a model and its weights to the function that attacks, evaluation and analyses take: [0, 1] images -> logits."""
import functools

import jax

from vmamba_jax.models import catalog
from vmamba_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD, Classifier


def logits_fn(model, variables, mean=None, std=None):
    """[0, 1] images (b, H, W, channels) -> logits (b, classes).

    The result is compiled, and a `jax.tree_util.Partial` whose leaves are the weights: given to a jitted function as an argument, it bakes
    no weight into the program and one compilation serves every set of weights.

    Args:
        model: a catalog name, a Linen module, or a `Classifier`.
        variables: the model's variables, {"params": ...}.
        mean, std: preprocessing; by default the catalog's for a name, the classifier's own, and ImageNet's for a module with three channels.

    Raises:
        KeyError: an unknown name. ValueError: no preprocessing known.
    """
    return jax.tree_util.Partial(_compiled(as_classifier(model, mean, std)), variables)


def as_classifier(model, mean=None, std=None):
    """The `Classifier` of a catalog name, a Linen module or another classifier; arguments and errors as for `logits_fn`."""
    if isinstance(model, str):
        entry = catalog.entry(model)
        model, defaults = catalog.create_model(model), (entry.mean, entry.std)
    elif isinstance(model, Classifier):
        model, defaults = model.model, (model.mean, model.std)
    elif getattr(model, "in_channels", 3) == 3:
        defaults = (IMAGENET_MEAN, IMAGENET_STD)
    elif mean is None or std is None:
        raise ValueError(f"no preprocessing is known for a model with in_channels={model.in_channels}; give mean and std")
    else:
        defaults = (mean, std)
    return Classifier(model, defaults[0] if mean is None else mean, defaults[1] if std is None else std)


@functools.lru_cache(maxsize=64)
def _compiled(classifier):
    """One jitted function a classifier, so that equal classifiers give Partials of equal tree structure."""
    return jax.jit(classifier.__call__)
