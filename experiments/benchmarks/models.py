"""Whole models: forward pass, input gradient, training step and attack, data-parallel; growth with the image size, and memory."""
import functools

import jax
import jax.numpy as jnp
import numpy as np

import vmamba_jax
from experiments.benchmarks import compiled, torch_models
from experiments.benchmarks.timing import Case, Skip
from experiments.common.build import attack, attack_label
from experiments.common.cli import ConfigError, checking
from vmamba_jax import models, parallel, training

PASSES = ("forward", "gradient", "training", "pgd")
VARIANTS = {"ours": {}, "remat": {"remat": True}, "reference": {"scan_implementation": "reference"}, "associative": {"scan_implementation": "associative"}}
TOKEN = 16  # side of a token in pixels, for the sequence length that growth is measured against


def groups(config, devices, against=False):
    """Groups of whole models, one per pass, batch and dtype; with `against`, PyTorch's models are in the same groups."""
    section = config.models
    _check(section, "models")
    for batch in section.batches:
        for dtype in section.dtypes:
            for which in section.passes:
                theirs = config.against.models if against and which in config.against.passes else ()
                yield [functools.partial(_model, config, "model", name, variant, which, batch, section.size, dtype, devices)
                       for name in section.names for variant in section.variants] + \
                      [functools.partial(torch_models.case, name, which, batch, section.size, dtype, config.seed) for name in theirs]


def growth_groups(config, devices):
    """Groups of one model at several image sizes."""
    section = config.growth
    _check(section, "growth")
    for name in section.names:
        for which in section.passes:
            yield [functools.partial(_model, config, "growth", name, "ours", which, section.batch, size, section.dtype, devices)
                   for size in section.sizes]


def memory(config, devices, tick=lambda: None):
    """(records, notes): XLA's temporary memory of the input gradient, compiled but not run, and the reasons for skipped variants."""
    section, records, notes = config.memory, [], []
    _check(section, "memory")
    for name in section.names:
        for variant in section.variants:
            try:
                case = _model(config, "memory", name, variant, "gradient", section.batch, section.size, section.dtype, devices)
                records.append(case.record)
            except Skip as skip:
                notes.append(str(skip))
            tick()
    return records, notes


def _check(section, where):
    known = {"names": vmamba_jax.list_models(), "variants": VARIANTS, "passes": PASSES}
    for field in (field for field in section if field in known):
        if unknown := [name for name in section[field] if name not in known[field]]:
            raise ConfigError(f"config.{where}.{field}={unknown[0]!r}: expected some of {', '.join(known[field])}")


def _model(config, what, name, variant, which, batch, size, dtype, devices):
    mesh = compiled.mesh_for(batch, devices)
    classifier = _classifier(name, variant, dtype, config.models.overrides.to_dict())
    record = {"what": what, "name": name, "backend": variant, "pass": which, "batch": batch, "size": size, "dtype": dtype}
    if what == "growth":
        record["tokens"] = (size / TOKEN) ** 2
    rng, shape = np.random.default_rng(config.seed), (size, size, 3)
    x = {"image": rng.random((batch, *shape), np.float32), "label": np.arange(batch, dtype=np.int32) % 2}
    with checking(f"config.{'models' if what == 'model' else what}: {name} at {size}"):
        plain = _classifier(name, "ours", dtype, config.models.overrides.to_dict())
        variables = parallel.replicate(_variables(plain, shape, config.seed), mesh)
    if which == "training":
        return training_case(config, training.objectives.standard, classifier, variables, x, record, mesh)
    fn = {"forward": _forward, "gradient": _gradient, "pgd": _attacked}[which]
    options = {}
    if which == "pgd":
        options["adversary"] = adversary = attack(config.models.attack, "config.models.attack")
        record["attack"] = attack_label(adversary)
    return compiled.batch_case(functools.partial(fn, classifier, **options), variables, x, record, mesh, images=batch)


def _classifier(name, variant, dtype, overrides):
    fields = VARIANTS[variant] | ({} if dtype == "float32" else {"dtype": jnp.dtype(dtype)})
    with checking("config.models.overrides"):
        plain = vmamba_jax.create_model(name, **overrides)
    if missing := [field for field in fields if not hasattr(plain, field)]:
        raise Skip(f"{name} {variant} {dtype}: the model has no field {missing[0]}")
    return models.Classifier(plain.clone(**fields), models.entry(name).mean, models.entry(name).std)


@functools.lru_cache(maxsize=2)
def _variables(classifier, shape, seed):
    return classifier.init(jax.random.key(seed), shape)


def _forward(classifier, variables, x, key):
    return classifier(variables, x["image"])


def _gradient(classifier, variables, x, key):
    def loss(images):
        return training.objectives.losses.cross_entropy(classifier(variables, images), x["label"]) * images.shape[0]
    return jax.grad(loss)(x["image"])


def _attacked(classifier, variables, x, key, *, adversary):
    return adversary(jax.tree_util.Partial(classifier, variables), x["image"], x["label"], key)


def training_case(config, objective, classifier, variables, x, record, mesh):
    """A `Case` of the objective's step; each call donates the state that the call before returned."""
    with checking("config.models.optimizer"):
        optimizer = training.optimizer.create(**config.models.optimizer.to_dict())
    state = parallel.replicate(training.create_state(classifier, optimizer, None, x["image"].shape[1:], variables=variables), mesh)
    batch, key = parallel.shard_batch(x, mesh), parallel.replicate(jax.random.key(config.seed), mesh)
    step = parallel.map_step(objective(classifier, optimizer), mesh)
    program, facts = compiled.build(step, (state, batch, key), record)

    def run():
        nonlocal state
        state, metrics = program(state, batch, key)
        return metrics

    return Case(record | facts | {"devices": mesh.size}, run, queued=compiled.queued(), images=len(x["label"]), program=program)
