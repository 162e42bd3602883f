"""Steps from one network to another: parameters, multiply-adds and images per second of each."""
import functools

import jax
import numpy as np

import vmamba_jax
from experiments.benchmarks import compiled
from experiments.benchmarks.models import forward, training_case
from experiments.common.cli import ConfigError, checking
from vmamba_jax import models, parallel, training

PASSES = ("forward", "training")


def groups(config, devices):
    """Groups of one pass: of all rungs forward, of each rung alone in training, since the programs of ten training steps take 14 GB together."""
    section = config.ladder
    for which in section.passes:
        if which not in PASSES:
            raise ConfigError(f"config.ladder.passes={which!r}: expected some of {', '.join(PASSES)}")
        cases = [functools.partial(_case, config, name, which, devices) for name in section.names]
        yield from [cases] if which == "forward" else ([case] for case in cases)


def create(section, name):
    """The Linen module of one rung of a benchmark's section; ConfigError for an unknown rung, model or field."""
    if name not in section.models:
        raise ConfigError(f"config.ladder.names={name!r}: expected some of {', '.join(section.models)}")
    rung = section.models[name]
    with checking(f"config.ladder.models.{name}"):
        return vmamba_jax.create_model(rung.model, **rung.fields.to_dict(), dtype=None if section.dtype == "float32" else section.dtype)


def _case(config, name, which, devices):
    section = config.ladder
    model, shape, rng = create(section, name), (section.size, section.size, 3), np.random.default_rng(config.seed)
    classifier, found = models.Classifier(model), vmamba_jax.cost(model, section.size)
    variables = classifier.init(jax.random.key(config.seed), shape)
    rung = section.models[name]
    record = {"what": "ladder", "name": name, "backend": "ours", "pass": which, "batch": section.batch, "size": section.size, "dtype": section.dtype,
              "change": rung.change, "parameters": found.parameters, "gflops": found.gflops, "published": list(rung.published)}
    mesh = compiled.mesh_for(section.batch, devices)
    x = {"image": rng.random((section.batch, *shape), np.float32), "label": np.arange(section.batch, dtype=np.int32) % 2}
    if which == "training":
        return training_case(config, training.objectives.standard, classifier, variables, x, record, mesh)
    return compiled.batch_case(functools.partial(forward, classifier), parallel.replicate(variables, mesh), x, record, mesh, images=section.batch)
