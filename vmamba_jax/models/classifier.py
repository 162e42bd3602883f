"""A model with its preprocessing: [0, 1] images -> logits. Attacks act on these images, so mean and std belong to the classifier."""
import dataclasses
import functools
import inspect
import numbers

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmamba_jax.core.images import LEVELS
from vmamba_jax.models import catalog
from vmamba_jax.models.releases import IMAGENET_MEAN, IMAGENET_STD


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Callable (variables, images) -> logits that normalizes the images, then applies the model. Hashable, so it can be a static argument.

    Attributes:
        model: a Linen module called as `model(images, train=...)`, or as `model(images)` if it has no argument `train`.
        mean, std: per channel, in units of [0, 1] images; a single number serves all channels.
        columns: positions of the logits that are returned, in this order, for a set with some of the model's classes; None: all.

    Raises:
        ValueError: a std that is not positive, mean and std of different lengths, or columns that are no different integers >= 0.
    """
    model: nn.Module
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD
    columns: tuple | None = None

    def __post_init__(self):
        for field in ("mean", "std"):
            value = getattr(self, field)
            value = (float(value),) if isinstance(value, numbers.Real) else tuple(float(v) for v in value)
            object.__setattr__(self, field, value)
        if not all(s > 0 for s in self.std):
            raise ValueError(f"std={self.std}: expected positive numbers")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean}: expected as many numbers as std={self.std}")
        if self.columns is not None:
            object.__setattr__(self, "columns", tuple(int(k) for k in self.columns))
            if not self.columns or min(self.columns) < 0 or len(set(self.columns)) != len(self.columns):
                raise ValueError(f"columns={self.columns}: expected different integers >= 0, at least one")

    def normalize(self, images):
        """(images - mean) / std over the last axis, in the images' dtype; uint8 images are divided by 255 first, as float32.

        Raises:
            TypeError: images neither uint8 nor floating.
        """
        if images.dtype == jnp.uint8:
            images = jnp.asarray(LEVELS)[images]
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(f"images.dtype={images.dtype}: expected uint8, or a floating type in [0, 1]")
        if len(self.mean) not in (1, images.shape[-1]):
            raise ValueError(f"images.shape={images.shape}: expected {len(self.mean)} channels, as mean and std have")
        return (images - jnp.asarray(self.mean, images.dtype)) / jnp.asarray(self.std, images.dtype)

    def __call__(self, variables, images, *, train=False, rngs=None, mutable=False, **options):
        """Logits (b, classes) of images (b, H, W, channels) in [0, 1]; with `mutable`, (logits, updated collections).

        Args:
            variables: the model's variables.
            images: (b, H, W, channels), floating in [0, 1], or uint8.
            train: training mode: drop path is active (needs rngs={"dropout": key}) and batch norm uses the batch's statistics (needs
                mutable=["batch_stats"]).
            rngs, mutable: as for `nn.Module.apply`.
            options: further keywords of the model's call, such as auxiliary=True of `UperNet`; only with columns=None.
        """
        if options and self.columns is not None:
            raise ValueError(f"{', '.join(options)} with columns={self.columns}: expected columns=None")
        mode = {"train": train} if _has_train(type(self.model)) else {}
        found = self.model.apply(variables, self.normalize(images), **mode, **options, rngs=rngs, mutable=mutable)
        if self.columns is None:
            return found
        logits, *updates = found if mutable else (found,)
        if logits.shape[-1] <= max(self.columns):
            raise ValueError(f"columns={self.columns}: expected positions of the model's {logits.shape[-1]} logits")
        logits = logits[..., jnp.array(self.columns)]
        return (logits, *updates) if mutable else logits

    def init(self, key, image_shape, dtype=jnp.float32):
        """New variables for images of image_shape (H, W, channels); compiled, and without the `perturbations` that probes create."""
        init = jax.jit(lambda key: self.model.init(key, jnp.zeros((1, *image_shape), dtype)))
        return {name: tree for name, tree in init(key).items() if name != "perturbations"}


def logits_fn(model, variables, mean=None, std=None):
    """Compiled function [0, 1] images (b, H, W, channels) -> logits (b, classes).

    The function is a `jax.tree_util.Partial` whose leaves are the weights: as an argument of a jitted function it puts no weight into the
    program as a constant, and one compilation serves every set of weights.

    Args:
        model: a catalog name, a Linen module, or a `Classifier`.
        variables: the model's variables, {"params": ...}.
        mean, std: preprocessing; None: the catalog's for a name, the classifier's own, and for a module of a catalog family with three
            channels that of all its entries, or ImageNet's if they differ (`ViT`). Any other module gets the images as they are, and so does a
            `SequenceClassifier` of any channels.

    Raises:
        KeyError: an unknown name.
        TypeError: `model` is neither of the three.
        ValueError: a module of a catalog family without three channels, without mean and std.
    """
    return jax.tree_util.Partial(_compiled(as_classifier(model, mean, std)), variables)


def as_classifier(model, mean=None, std=None):
    """The `Classifier` of a catalog name, a Linen module or another classifier; arguments and errors as for `logits_fn`."""
    columns = None
    if isinstance(model, str):
        entry = catalog.entry(model)
        model, defaults = catalog.create_model(model), (entry.mean, entry.std)
    elif isinstance(model, Classifier):
        columns = model.columns
        model, defaults = model.model, (model.mean, model.std)
    elif not isinstance(model, nn.Module):
        raise TypeError(f"model={model!r}: expected a catalog name, a Linen module or a Classifier")
    elif not isinstance(model, catalog.FAMILIES):
        defaults = ((0.0,), (1.0,))
    else:
        released = {(entry.mean, entry.std) for entry in catalog.MODELS.values() if isinstance(model, entry.family)}
        if len(released) == 1 and (model.in_channels == 3 or len(next(iter(released))[0]) == 1):
            defaults = released.pop()
        elif model.in_channels == 3:
            defaults = (IMAGENET_MEAN, IMAGENET_STD)
        elif mean is None or std is None:
            raise ValueError(f"mean={mean}, std={std}: expected both for a model with in_channels={model.in_channels}, which has no default")
        else:
            defaults = (mean, std)
    return Classifier(model, defaults[0] if mean is None else mean, defaults[1] if std is None else std, columns)


@functools.cache
def _has_train(family):
    """Whether the modules of a class are called with `train`."""
    parameters = inspect.signature(family.__call__).parameters.values()
    return any(p.name == "train" or p.kind is p.VAR_KEYWORD for p in parameters)


@functools.lru_cache(maxsize=64)
def _compiled(classifier):
    """One jitted function per classifier, so that equal classifiers return Partials of equal tree structure."""
    return jax.jit(classifier.__call__)
