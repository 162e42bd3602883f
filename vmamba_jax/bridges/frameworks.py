"""Models of each framework as a static function of (weights, input) and weights, in evaluation mode. No framework but Flax is imported here."""
import dataclasses
import inspect
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import export as jax_export
from jax.tree_util import Partial

from vmamba_jax import checkpoints, models
from vmamba_jax.bridges import torch
from vmamba_jax.bridges.preprocessing import Preprocessing
from vmamba_jax.checkpoints.export import ExportedModel
from vmamba_jax.core import closures

MODES = {"train": False, "training": False, "is_training": False, "deterministic": True, "inference": True, "use_running_average": True}
"""Arguments of a module's call that choose the mode, and their values for evaluation."""


@dataclasses.dataclass
class Read:
    """A model as read.

    Attributes:
        kind: what it is, for messages.
        apply: static function (weights, input) -> logits.
        weights: tree of arrays, or a function that returns it for a module that may be changed in place.
        preprocessing: the model's own; None: stated by the caller.
        inside: whether `apply` includes `preprocessing`.
        layout: of the input if the caller states none; None: the caller must.
        image_shape: (H, W, C) if the model states it.
    """
    kind: str
    apply: Callable
    weights: Any = ()
    preprocessing: Preprocessing | None = None
    inside: bool = False
    layout: str | None = "NHWC"
    image_shape: tuple | None = None


def read(model, variables, mean):
    """`Read` of any model that `classifier` takes; errors as there."""
    if isinstance(model, (str, os.PathLike)):
        return _named(model, variables)
    if isinstance(model, models.Classifier):
        return Read("models.Classifier", model, _required(model, variables), Preprocessing(model.mean, model.std), True)
    if isinstance(model, nn.Module):
        if variables is None and model.scope is not None:
            model, variables = model.unbind()
        if isinstance(model, models.catalog.FAMILIES) and mean is None:
            raise ValueError(f"mean=None with a {type(model).__name__}: expected mean and std, models.IMAGENET_MEAN and models.IMAGENET_STD for most released "
                             "weights, 0 and 1 for a model that takes [0, 1] images")
        return Read(f"Linen {type(model).__name__}", Linen(model), _required(model, variables))
    if _is(model, "flax.nnx", "Module"):
        _rejected(model, variables)
        return _nnx(model)
    if torch.is_module(model):
        _rejected(model, variables)
        function = torch.logits_fn(model, "NHWC")  # as it is: the preprocessing transposes
        return Read(f"torch {type(model).__name__}", Plain(function), layout="NCHW")
    if _is(model, "equinox", "Module"):
        _rejected(model, variables)
        return _equinox(model)
    if isinstance(model, tuple) and hasattr(model, "init") and hasattr(model, "apply"):
        return Read("Haiku transform", Haiku(model.apply, "State" in type(model).__name__), _required(model, variables))
    if isinstance(model, (ExportedModel, jax_export.Exported)):
        return _exported(model, variables, type(model).__name__)
    if not callable(model):
        raise TypeError(f"model={type(model).__name__}: expected a module, a function, a catalog name, or the path of an exported program")
    if variables is not None:
        return Read(f"function {_name(model)}", OfWeights(model), variables)
    if isinstance(model, Partial) and jax.tree.leaves(model):
        return Read(f"function {_name(model.func)}", PartialOf(model.func), (model.args, dict(model.keywords)))
    return Read(f"function {_name(model)}", Plain(model))


def _named(model, variables):
    text = os.fspath(model)
    if not os.path.exists(text):
        try:
            entry = models.entry(text)
        except KeyError:
            raise ValueError(f"model={text!r}: expected a name of vmamba_jax.list_models(), or the path of an exported program") from None
        size = entry.image_size
        return Read(text, Linen(models.create_model(text)), _required(text, variables), Preprocessing(entry.mean, entry.std), image_shape=(size, size, 3))
    with open(text, "rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        return _exported(checkpoints.load_exported(text), variables, f"exported program {os.path.basename(text)}")
    try:
        with open(text, "rb") as file:
            program = jax_export.deserialize(bytearray(file.read()))
    except Exception as error:  # a file of another kind can raise nearly anything
        raise ValueError(f"model={text!r}: expected a file of checkpoints.export_model or of jax.export, but {str(error)[:200] or type(error).__name__}") from None
    return _exported(program, variables, f"exported program {os.path.basename(text)}")


def _exported(model, variables, kind):
    if isinstance(model, ExportedModel):
        _rejected(model, variables)
        own = dataclasses.replace(model, weights=None)
        return Read(kind, Program(own), model.weights, Preprocessing(), True, image_shape=tuple(model.metadata["image_shape"]))
    shape = model.in_avals[-1].shape
    if len(shape) != 4:
        raise ValueError(f"model={kind}: expected a program of images (batch, height, width, channels), not {shape}")
    arguments = len(jax.tree.unflatten(model.in_tree, model.in_avals)[0])
    if arguments != 1 + (variables is not None):
        raise ValueError(f"model={kind} with variables {'missing' if variables is None else 'given'}: expected a program of {1 + (variables is not None)} "
                         f"arguments, not {arguments}")
    stated = shape[1:] if all(isinstance(n, int) for n in shape[1:]) else None
    return Read(kind, Program(model), () if variables is None else (variables,), image_shape=stated)


def _nnx(model):
    from flax import nnx
    graph, state = nnx.split(model)
    del state
    mode = _mode(type(model))
    return Read(f"NNX {type(model).__name__}", Nnx(graph, tuple(mode.items())), lambda: nnx.state(model))


def _equinox(model):
    import equinox
    model = equinox.nn.inference_mode(model)
    leaves, structure = jax.tree.flatten(model)
    arrays = [isinstance(x, (jax.Array, np.ndarray)) for x in leaves]
    static = tuple(None if array else x for x, array in zip(leaves, arrays, strict=True))
    return Read(f"Equinox {type(model).__name__}", Equinox(structure, static), tuple(x for x, array in zip(leaves, arrays, strict=True) if array), layout=None)


# ---- static functions (weights, input) -> logits

@dataclasses.dataclass(frozen=True)
class Linen:
    """A Linen module in evaluation mode."""
    module: nn.Module

    def __call__(self, weights, x):
        takes = inspect.signature(type(self.module).__call__).parameters.values()
        mode = {"train": False} if any(p.kind is p.VAR_KEYWORD for p in takes) else {}
        return self.module.apply(weights, x, **mode | _mode(type(self.module)))


@dataclasses.dataclass(frozen=True)
class Nnx:
    """An NNX module by its graph, in evaluation mode; the user's module is not touched."""
    graph: Any
    mode: tuple

    def __call__(self, weights, x):
        from flax import nnx
        module = nnx.merge(self.graph, weights)
        module.eval()
        return module(x, **dict(self.mode))


@dataclasses.dataclass(frozen=True)
class Equinox:
    """An Equinox module in inference mode, by its structure and its leaves that are no arrays."""
    structure: Any
    static: tuple

    def __call__(self, weights, x):
        arrays = iter(weights)
        leaves = [next(arrays) if leaf is None else leaf for leaf in self.static]
        return jax.tree.unflatten(self.structure, leaves)(x)


@dataclasses.dataclass(frozen=True)
class Haiku:
    """Haiku's `apply` of (params, x), (params, rng, x), or with `state` of ((params, state), ...); without random numbers."""
    function: Callable
    state: bool

    def __call__(self, weights, x):
        rng = (None,) if "rng" in inspect.signature(self.function).parameters else ()
        if not self.state:
            return self.function(weights, *rng, x)
        return self.function(*weights, *rng, x)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """An exported program, called in pieces of the batch size that it was exported for."""
    program: Any

    def __call__(self, weights, x):
        if isinstance(self.program, ExportedModel):
            return dataclasses.replace(self.program, weights=weights)(x)
        size = self.program.in_avals[-1].shape[0]
        if not isinstance(size, int):  # any number
            return self.program.call(*weights, x)
        padded = jax.numpy.pad(x, ((0, -len(x) % size), (0, 0), (0, 0), (0, 0)))
        return jax.numpy.concatenate([self.program.call(*weights, padded[i:i + size]) for i in range(0, len(padded), size)])[:len(x)]


@dataclasses.dataclass(frozen=True)
class OfWeights:
    """A function (weights, input) -> logits."""
    function: Callable

    def __call__(self, weights, x):
        return self.function(weights, x)


@dataclasses.dataclass(frozen=True)
class PartialOf:
    """The function of a `jax.tree_util.Partial`, whose arguments are the weights."""
    function: Callable

    def __call__(self, weights, x):
        args, keywords = weights
        return self.function(*args, x, **keywords)


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """A function of the input alone."""
    function: Callable

    def __call__(self, weights, x):
        del weights
        return self.function(x)


def compiles(apply):
    """Whether programs of `apply` need no new trace, so that it may be compiled once: it reads nothing but its arguments."""
    if isinstance(apply, (OfWeights, PartialOf, Haiku)):
        function = apply.function
        return closures.constant(function) or (isinstance(function, types.FunctionType) and not function.__closure__)
    return not isinstance(apply, Plain) or closures.constant(apply.function)


# ---- helpers

def _is(value, module, name):
    """Whether `value` is an instance of `module.name`; the module is not imported for it."""
    cls = getattr(sys.modules.get(module), name, None)
    return cls is not None and isinstance(value, cls)


def _mode(cls):
    parameters = inspect.signature(cls.__call__).parameters
    return {name: value for name, value in MODES.items() if name in parameters}


def _name(function):
    return getattr(function, "__qualname__", type(function).__qualname__)


def _required(model, variables):
    if variables is None:
        raise ValueError(f"variables=None: expected the weights of {model if isinstance(model, str) else type(model).__name__}")
    return variables


def _rejected(model, variables):
    if variables is not None:
        raise ValueError(f"variables given with a {type(model).__name__}: expected None, it holds its own")
