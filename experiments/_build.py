"""From a config to the pieces of the package it names. Every wrong name or value is a ConfigError that says which section is wrong."""
import jax

import vmamba_jax
from experiments._cli import ConfigError, checking
from vmamba_jax import attacks, data, training
from vmamba_jax.models import Classifier


def source(config, split, limit=0):
    """A split of the config's data set; limit > 0 draws that many of its examples."""
    with checking("config.data"):
        loaded = data.load(config.data.name, split, root=config.data.root or None, **config.data.options.to_dict())
        return data.subset(loaded, min(limit, len(loaded)), seed=0) if limit else loaded


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


def attack_label(attack):
    """What a reader calls an attack: "PGD-20, 5 restarts"."""
    if attack.name == "autoattack":
        return f"AutoAttack {attack.version}"
    name = {"fgsm": "FGSM", "pgd": "PGD", "momentum_pgd": "MI-FGSM", "apgd": "APGD", "patch_fool": "Patch-Fool"}.get(attack.name, attack.name)
    steps, restarts = getattr(attack, "steps", None), getattr(attack, "restarts", 1)
    return name + (f"-{steps}" if steps else "") + (f", {restarts} restarts" if restarts > 1 else "")


def optimizer(config, steps):
    """The optimizer with its learning-rate schedule, for `steps` updates in all. config.schedule.warmup, cooldown and boundaries are shares of them."""
    section = config.schedule.to_dict()
    rate, name = section.pop("learning_rate"), section.pop("name")
    lengths = {"warmup_steps": round(section.pop("warmup") * steps)} | ({"total_steps": steps - round(section.pop("cooldown", 0) * steps)} if name == "cosine" else {})
    if "boundaries" in section:
        lengths["boundaries"] = [round(share * steps) for share in section.pop("boundaries")]
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
