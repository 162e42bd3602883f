"""One step of PGD adversarial training for several models, beside the same recipe in plain torch for a ResNet: speed, memory, time outside the model."""
import dataclasses
import functools

import jax
import numpy as np

import vmamba_jax
from experiments.benchmarks import compiled, torch_training
from experiments.benchmarks.models import training_case
from experiments.benchmarks.timing import rounded
from experiments.common.build import attack, attack_label
from experiments.common.cli import ConfigError, checking
from vmamba_jax import models, parallel, training
from vmamba_jax.models.baselines.resnet import ResNet


def groups(config, devices, against=False):
    """Groups, one per model of config.training: our step, and torch's with `against` if the model is a ResNet."""
    for label, entry in config.training.models.items():
        if missing := [field for field in ("name", "size", "batch", "overrides") if field not in entry]:
            raise ConfigError(f"config.training.models.{label}: expected the field {missing[0]}")
        if entry.name not in vmamba_jax.list_models():
            raise ConfigError(f"config.training.models.{label}.name={entry.name!r}: expected a name of the catalog")
        with checking(f"config.training.models.{label}"):
            classifier = models.Classifier(vmamba_jax.create_model(entry.name, **entry.overrides.to_dict()))
        theirs = [functools.partial(torch_training.case, config, *_made(config, label, classifier, entry))] \
            if against and isinstance(classifier.model, ResNet) else []
        yield [functools.partial(_case, config, label, classifier, entry, devices), *theirs]


def _made(config, label, classifier, entry):
    """(record, classifier, batch, attack) of both programs."""
    shape, rng = (entry.size, entry.size, 3), np.random.default_rng(config.seed)
    adversary = attack(config.training.attack, "config.training.attack")
    record = {"what": "training", "name": label, "pass": "training", "batch": entry.batch, "size": entry.size, "attack": attack_label(adversary)}
    x = {"image": rng.random((entry.batch, *shape), np.float32), "label": rng.integers(0, 10, entry.batch).astype(np.int32)}
    return record, classifier, x, adversary


def _case(config, label, classifier, entry, devices):
    record, _, x, adversary = _made(config, label, classifier, entry)
    mesh = compiled.mesh_for(entry.batch, devices)
    variables = classifier.init(jax.random.key(config.seed), x["image"].shape[1:])
    objective = functools.partial(training.objectives.pgd_at, attack=adversary)
    case = training_case(config, objective, classifier, variables, x, record | {"backend": "ours"}, parallel.data_mesh(devices[:mesh.size]))
    memory = case.program.memory_analysis()
    if memory is not None:
        live = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        case.record["peak_mib"] = rounded(live * mesh.size / 2**20)
    case.record["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return dataclasses.replace(case, module=type(classifier.model).__name__)
