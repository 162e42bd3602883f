"""Scaling of one adversarial training step with the number of devices: constant global batch, and constant batch per device."""
import functools

import jax
import numpy as np

import vmamba_jax
from experiments.benchmarks.models import training_case
from experiments.benchmarks.timing import Skip
from experiments.common.build import attack, attack_label
from experiments.common.cli import ConfigError, checking
from vmamba_jax import models, parallel, training

MODES = ("global", "per_device")


def groups(config, devices):
    """Groups, one per model and mode, whose candidates are the numbers of devices."""
    section = config.scaling
    if unknown := [name for name in section.models if name not in vmamba_jax.list_models()]:
        raise ConfigError(f"config.scaling.models={unknown[0]!r}: expected names of the catalog")
    if min(section.devices, default=0) != 1 or section.batch % max(section.devices):
        raise ConfigError(f"config.scaling.devices={section.devices}: expected numbers that include 1 and whose largest divides "
                          f"config.scaling.batch={section.batch}")
    for name in section.models:
        for mode in MODES:
            yield [functools.partial(_case, config, name, mode, n, devices) for n in section.devices]


def batch_of(mode, batch, n, largest):
    """Images over `n` devices: `batch` in mode "global"; in mode "per_device" n times the images that each of `largest` devices gets of it."""
    return batch if mode == "global" else batch // largest * n


def _case(config, name, mode, n, devices):
    section = config.scaling
    if n > len(devices):
        raise Skip(f"{name} on {n} devices: only {len(devices)} are available (on a CPU, JAX_NUM_CPU_DEVICES sets the number)")
    batch, shape = batch_of(mode, section.batch, n, max(section.devices)), (section.size, section.size, 3)
    with checking(f"config.scaling.models.{name}"):
        classifier = models.Classifier(vmamba_jax.create_model(name, **section.models[name].to_dict()))
        variables = classifier.init(jax.random.key(config.seed), shape)
    rng = np.random.default_rng(config.seed)
    x = {"image": rng.random((batch, *shape), np.float32), "label": rng.integers(0, 10, batch).astype(np.int32)}
    adversary = attack(section.attack, "config.scaling.attack")
    record = {"what": "scaling", "name": name, "backend": "ours", "pass": "training", "mode": mode, "batch": batch, "size": section.size,
              "attack": attack_label(adversary)}
    objective = functools.partial(training.objectives.pgd_at, attack=adversary)
    return training_case(config, objective, classifier, variables, x, record, parallel.data_mesh(devices[:n]))
