"""Phases of one training: other image sizes, batches and attacks one after another, with one count of steps and one optimizer.

`config.phases` is a tuple of dicts, one for each phase, with the fields of `FIELDS`. Each phase has a config of its own, the run's with these fields:

    {"epochs": 30}            of the phase, required; config.epochs is 0
    {"size": 84}              side of the training images, in pixels; validation images keep the size of config.data
    {"batch_size": 1024}      the learning rate and its start and end are multiplied by batch_size / config.batch_size
    {"learning_rate": 1e-4}   peak of the schedule, in place of that product
    {"attack": {"steps": 3}}  fields of config.objective.attack

config.schedule covers each phase anew, its shares and epochs too; config.objective.ramp covers the first phase.
"""
import copy

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import traverse_util

from experiments.common.cli import ConfigError, checking
from experiments.common.schedule import Lengths
from vmamba_jax import data
from vmamba_jax.checkpoints.convert import leaves_of, reassemble
from vmamba_jax.core import checks
from vmamba_jax.core.gathered import on_host
from vmamba_jax.models import Classifier

FIELDS = ("epochs", "size", "batch_size", "learning_rate", "attack")


def check(name, value):
    """Raise unless a value of config.phases is a tuple of phases."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}={value!r}: expected a tuple")
    for i, phase in enumerate(value):
        where = f"{name}[{i}]"
        if not isinstance(phase, (dict, ml_collections.ConfigDict)):
            raise TypeError(f"{where}={phase!r}: expected a dict with some of {', '.join(FIELDS)}")
        if unknown := sorted(set(phase) - set(FIELDS)):
            raise ValueError(f"{where}.{unknown[0]}: unknown field; expected some of {', '.join(FIELDS)}")
        if "epochs" not in phase:
            raise ValueError(f"{where}: expected a field epochs")
        for field in ("epochs", "size", "batch_size"):
            if field in phase:
                checks.count(f"{where}.{field}", phase[field])
        if "learning_rate" in phase:
            checks.number(f"{where}.learning_rate", phase["learning_rate"], low=0)
        if not isinstance(phase.get("attack", {}), (dict, ml_collections.ConfigDict)):
            raise TypeError(f"{where}.attack={phase['attack']!r}: expected a dict of fields of config.objective.attack")


def configs(config):
    """The config of every phase, without phases of its own; [config] if it has none."""
    if not config.phases:
        return [config]
    if config.epochs:
        raise ConfigError(f"config.epochs={config.epochs}: expected 0 with config.phases, each of which has its epochs")
    return [_config(config, i, dict(phase)) for i, phase in enumerate(config.phases)]


def _config(config, i, phase):
    found = copy.deepcopy(config)
    found.phases = ()
    found.epochs, found.batch_size = phase["epochs"], phase.get("batch_size", config.batch_size)
    scale = found.batch_size / config.batch_size if config.batch_size else 1.0
    if "learning_rate" in phase:
        scale = phase["learning_rate"] / config.schedule.learning_rate if config.schedule.learning_rate else 0.0
    for field in ("learning_rate", "warmup_start", "end"):
        found.schedule[field] = float(config.schedule[field] * scale)
    if i:
        found.objective.ramp = found.objective.ramp_epochs = 0.0
    if attack := phase.get("attack"):
        if unknown := sorted(set(attack) - set(config.objective.attack)):
            raise ConfigError(f"config.phases[{i}].attack.{unknown[0]}: expected some of {', '.join(config.objective.attack)}, the fields of config.objective.attack")
        found.objective.attack.update(attack)
    if size := phase.get("size"):
        if found.transform.name != "none":
            if "size" not in found.transform:
                raise ConfigError(f"config.phases[{i}].size={size}: expected none, as the transform {found.transform.name!r} has no size")
            found.transform.size = size
        if "size" in found.data.options:
            if found.data.options.get("resize"):
                found.data.options.resize = round(found.data.options.resize * size / found.data.options.size)
            found.data.options.size = size
    return found


def resized(config, i, train):
    """The training images of phase i at its size: the source itself if it has that size."""
    size = config.phases[i].get("size") if config.phases else None
    if size is None or train.image_shape is None or train.image_shape[:2] == (size, size):
        return train
    with checking(f"config.phases[{i}].size"):
        if isinstance(train, data.DenseSource):
            raise ValueError(f"expected none, as the label maps of {train!r} have the images' size")
        return data.Resized(train, size)


def model(config, i, classifier):
    """The classifier of phase i: that of the run, with a position embedding of the phase's size if it has one.

    Raises:
        ConfigError: the last phase's size is not the model's, which would not fit the run's model afterwards.
    """
    inner, size = classifier.model, config.phases[i].get("size") if config.phases else None
    if size is None or not hasattr(inner, "image_size") or not getattr(inner, "pos_embed", True) or inner.image_size == size:
        return classifier
    if i == len(config.phases) - 1:
        raise ConfigError(f"config.phases[{i}].size={size}: expected {inner.image_size}, the model's image_size, in the last phase; "
                          f"config.model.overrides.image_size={size} sets it")
    return Classifier(inner.clone(image_size=size), classifier.mean, classifier.std, classifier.columns)


def rate(parts, steps):
    """The learning rate as a function of the updates of all phases; parts, steps: config and number of steps of each."""
    lengths = [Lengths.of(part, n) for part, n in zip(parts, steps, strict=True)]
    rates = [length.rate(part.schedule) for length, part in zip(lengths, parts, strict=True)]
    if len(rates) == 1:
        return rates[0]
    ends = [sum(length.updates for length in lengths[:i + 1]) for i in range(len(lengths) - 1)]
    return optax.join_schedules(rates, ends)


def enter(state, phase, batch_size):
    """The state at the start of a phase, from the state at the end of the one before.

    Weights and their average whose shape depends on the image size are resized as converted checkpoints are (bicubically); their moments start at zero.
    All other arrays stay. The objective's own state starts anew if its shape depends on the size or the batch.

    Args:
        state: `TrainState` at the end of the phase before.
        phase: `build.Run` of the phase.
        batch_size: of the phase.
    """
    with jax.ensure_compile_time_eval():  # also within `jax.eval_shape`
        params, ema = (None if tree is None else _fitted(phase.classifier, tree, state.model_state) for tree in (state.params, state.ema))
        state = state.replace(params=params, ema=ema, opt_state=_kept(state.opt_state, lambda: phase.optimizer.init(params)))
        begin = lambda: phase.step.begin(state.replace(carry=None), phase.train.image_shape, batch_size).carry
        return state.replace(carry=_kept(state.carry, begin))


def _fitted(classifier, params, model_state):
    given = traverse_util.flatten_dict({"params": params, **model_state})
    if not hasattr(classifier.model, "image_size") or all(x.shape == given[path].shape for path, x in leaves_of(classifier).items()):
        return params
    found, resized = reassemble(classifier, {path: on_host(x) for path, x in given.items()})
    return traverse_util.unflatten_dict({path: jnp.asarray(found[path]) if path in resized else x for path, x in given.items()})["params"]


def _kept(old, make):
    """The arrays of a tree that have the shapes of `make()`, and those of `make()` for the others."""
    shapes = jax.eval_shape(make)
    if jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, old):
        return old
    return jax.tree.map(lambda x, y: x if x.shape == y.shape else y, old, make())
