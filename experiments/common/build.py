"""From a config to the pieces of the package it names. Every wrong name or value is a ConfigError that says which section is wrong."""
import dataclasses
import functools

import jax

import vmamba_jax
from experiments.common.cli import ConfigError, checking
from vmamba_jax import attacks, checkpoints, data, training
from vmamba_jax.models import Classifier


def source(config, split, limit=0):
    """A split of the config's data set; limit > 0 draws that many of its examples."""
    with checking("config.data"):
        loaded = data.load(config.data.name, split, root=config.data.root or None, **config.data.options.to_dict())
        return data.subset(loaded, min(limit, len(loaded)), seed=0) if limit else loaded


def batches(config, train):
    """The training batches of this process: `data.Pipeline` where config.transform says what to do with a picture, else `data.Batches`.

    config.extra mixes a set in by a fraction, config.repeats copies of an image, config.loader says who decodes: see `data.Mixed`,
    `data.Repeated`, `data.Pipeline`.
    """
    options = {"seed": config.seed, "shard": (jax.process_index(), jax.process_count())}
    if fraction := config.get("extra", {}).get("fraction", 0):
        with checking("config.extra"):
            extra = data.load(config.extra.name, "train", root=config.extra.root or None, **config.extra.options.to_dict())
            train = data.Mixed(train, extra, fraction)
    if config.get("repeats", 1) > 1:
        train = data.Repeated(train, config.repeats)
    with checking("config.batch_size"):
        if "transform" not in config:
            return data.Batches(train, config.batch_size, **options)
    with checking("config.transform"):
        transform = data.transforms.create(**config.transform.to_dict())
    with checking("config.loader"):
        loader = config.loader.to_dict()
        return data.Pipeline(train, config.batch_size, transform=transform, threads=loader.pop("threads") or None, **loader, **options)


def variables(config, classifier):
    """The weights that config.init.checkpoint names, a released file or a folder that `checkpoints convert` wrote; None: at random."""
    path = config.get("init", {}).get("checkpoint", "")
    if not path:
        return None
    with checking("config.init.checkpoint"):
        return checkpoints.read_variables(classifier.model, path)


def classifier(config, like):
    """The model with its preprocessing. `like`: a source, which tells classes and channels where the config does not."""
    if like.image_shape is None:
        raise ConfigError("config.data.options: images of one size are needed, expected an option such as size=224")
    fields = {"num_classes": len(like.classes), "in_channels": like.image_shape[-1], **config.model.overrides.to_dict()}
    with checking("config.model"):
        model = vmamba_jax.create_model(config.model.name, **fields)
    with checking("config.preprocessing"):
        made = Classifier(model, tuple(config.preprocessing.mean), tuple(config.preprocessing.std))
    with checking("config.model"):
        jax.eval_shape(lambda key: made.init(key, like.image_shape), jax.random.key(0))
    return made


def attack(options, where):
    """The attack of one config section, {"name": ..., its options}; `where` is the section's name."""
    with checking(where):
        return attacks.create(**options.to_dict())


def resized(attack, radius):
    """The attack at another radius, its steps in proportion. Radius and step are arguments of the compiled program: one serves all radii."""
    scaled = {"eps": radius, "step_size": radius / attack.eps * attack.step_size} if hasattr(attack, "step_size") else {"eps": radius}
    return dataclasses.replace(attack, **scaled)


def attack_label(attack):
    """What a reader calls an attack: "PGD-20, 5 restarts"."""
    if attack.name == "autoattack":
        return f"AutoAttack {attack.version}"
    name = {"fgsm": "FGSM", "pgd": "PGD", "momentum_pgd": "MI-FGSM", "apgd": "APGD", "patch_fool": "Patch-Fool"}.get(attack.name, attack.name)
    steps, restarts = getattr(attack, "steps", None), getattr(attack, "restarts", 1)
    return name + (f"-{steps}" if steps else "") + (f", {restarts} restarts" if restarts > 1 else "")


def optimizer(config, steps):
    """The optimizer with its learning-rate schedule over the updates of `steps` steps; `free` makes one for each of its replays.

    config.schedule.warmup, cooldown and boundaries are shares of them.
    """
    section, updates = config.schedule.to_dict(), steps * config.objective.get("replays", 1)
    rate, name = section.pop("learning_rate"), section.pop("name")
    lengths = {"warmup_steps": round(section.pop("warmup") * updates)}
    if name == "cosine":
        lengths["total_steps"] = updates - round(section.pop("cooldown", 0) * updates)
    if "boundaries" in section:
        lengths["boundaries"] = [round(share * updates) for share in section.pop("boundaries")]
    with checking("config.schedule"):
        schedule = training.schedules.create(name, rate, **lengths, **section)
    with checking("config.optimizer"):
        return training.optimizer.create(learning_rate=schedule, **config.optimizer.to_dict())


def objective(config, classifier, optimizer, steps):
    """The training step that the config's objective names; its `ramp` is the share of the `steps` updates over which the radius grows."""
    options = config.objective.to_dict()
    options["ema_decay"] = ema_decay(config)
    if "attack" in options:
        options["attack"] = attack(config.objective.attack, "config.objective.attack")
    if ramp := options.pop("ramp", 0):
        with checking("config.objective.ramp"):
            options["eps_schedule"] = training.schedules.ramp(round(ramp * steps))
    with checking("config.augment"):
        options["augment"] = data.augment.create(**config.augment.to_dict())
    if "mix" in config:
        with checking("config.mix"):
            options["mix"] = functools.partial(data.mix.create(**config.mix.to_dict()), num_classes=classifier.model.num_classes)
    with checking("config.objective"):
        return training.objectives.create(options.pop("name"), classifier, optimizer, **options)


def ema_decay(config):
    """The decay of the weights' average, None where the config has 0 for none."""
    if not 0 <= config.ema_decay < 1:
        raise ConfigError(f"config.ema_decay={config.ema_decay}: expected 0 (no average) or a decay below 1")
    return config.ema_decay or None


def positive(config, *names):
    """Check that fields are at least 1."""
    for name in names:
        if config[name] < 1:
            raise ConfigError(f"config.{name}={config[name]}: expected at least 1")
