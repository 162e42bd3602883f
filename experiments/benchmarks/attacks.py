"""Whole attacks on real or random images: images per second, compile time, robust accuracy; and the reference AutoAttack on the same weights."""
import pathlib
import time

import jax
import numpy as np

import vmamba_jax
from configs import saved
from experiments.benchmarks.timing import Skip, rounded
from experiments.benchmarks.torch_attacks import attacked, bridge, twin
from experiments.common import build
from experiments.common.cli import ConfigError, checking
from vmamba_jax import attacks, checkpoints, evaluation, models, parallel
from vmamba_jax.core.images import unit_interval

SUBJECTS = {"torch": lambda classifier, variables, rows: twin(classifier, variables),
            "torch driving ours": lambda classifier, variables, rows: bridge(vmamba_jax.logits_fn(classifier, variables), rows)}
SIGNATURES = {"pgd": {"steps": 10}, "autoattack": {"version": "standard"}}


def records(config, devices, against=False, tick=lambda: None):
    """Measure each model of config.attacks under each attack.

    Args:
        config: the benchmark's.
        devices: JAX devices to use.
        against: whether torch also runs each attack, on a torch network with the same weights and on our model through a bridge.
        tick: called after each measurement.

    Returns:
        (records, notes); a record of torch has "agreeing", the number of images with the same verdict as ours.
    """
    section, found, notes = config.attacks, [], []
    unknown = [name for name in section.attacks if name not in SIGNATURES]
    if unknown:
        raise ConfigError(f"config.attacks.attacks={unknown[0]!r}: expected some of {', '.join(SIGNATURES)}")
    for name in section.models:
        classifier, variables, images, labels = _subject(section, name, config.models.overrides.to_dict(), config.seed)
        size = {"what": "attack", "name": name, "images": len(images), "size": images.shape[1], "batch": section.batch, "eps": section.eps}
        for which in section.attacks:
            options = SIGNATURES[which] | ({"step_size": section.eps / 4} if which == "pgd" else {})
            attack = attacks.create(which, eps=section.eps, **options)
            record = size | {"attack": build.attack_label(attack)}
            record_ours, robust = _ours(record, attack, classifier, variables, images, labels, section.batch, devices)
            found.append(record_ours)
            tick()
            for backend, subject in SUBJECTS.items() if against else ():
                try:
                    model = subject(classifier, variables, section.batch)
                    theirs, flags = attacked(which, attack, model, images, labels, section.batch, config.seed)
                    found.append(record | theirs | {"backend": backend, "agreeing": int((flags == robust).sum())})
                except Skip as skip:
                    notes.append(str(skip))
                tick()
    return found, notes


def _ours(record, attack, classifier, variables, images, labels, batch, devices):
    mesh = parallel.data_mesh(devices)
    logits_fn, key = vmamba_jax.logits_fn(classifier, parallel.replicate(variables, mesh)), jax.random.key(0)
    evaluate = lambda: evaluation.robust_accuracy(logits_fn, (images, labels), attack, key=key, batch_size=batch, mesh=mesh)
    since = time.perf_counter()
    evaluate()
    first, since = time.perf_counter() - since, time.perf_counter()
    result = evaluate()
    seconds = time.perf_counter() - since
    facts = {"backend": "ours", "devices": mesh.size, "seconds": rounded(seconds), "images_per_s": rounded(len(images) / seconds),
             "compile_s": rounded(max(first - seconds, 0)), "accuracy": result["accuracy"], "robust_accuracy": result["robust_accuracy"]}
    return record | facts | ({"stages": result["stages"]} if "stages" in result else {}), result["robust"]


def _subject(section, name, overrides, seed):
    """(classifier, variables, images in [0, 1], labels) of a trained run's folder or a catalog name.

    A catalog name gets random weights and images, and its own predictions as labels.
    """
    if (pathlib.Path(name) / "config.json").is_file():
        with checking(f"config.attacks.models: {name}"):
            config = saved.get_config(str(pathlib.Path(name) / "config.json"))
        source = build.source(config, "test", section.images)
        classifier = build.classifier(config, source)
        with checking(f"config.attacks.models: {name}"):
            variables = checkpoints.read_variables(classifier, name)
        images, labels = source.gather(np.arange(len(source)))
        return classifier, variables, unit_interval(images), labels
    with checking("config.attacks.models"):
        entry = models.entry(name)
        classifier = models.Classifier(vmamba_jax.create_model(name, **overrides), entry.mean, entry.std)
    shape = (section.size, section.size, 3)
    images = np.random.default_rng(seed).random((section.images, *shape), np.float32)
    variables = classifier.init(jax.random.key(seed), shape)
    logits_fn = vmamba_jax.logits_fn(classifier, variables)
    labels = np.concatenate([np.asarray(logits_fn(images[i:i + section.batch])).argmax(1) for i in range(0, len(images), section.batch)])
    return classifier, variables, images, labels.astype(np.int32)
