"""The lengths of a training's parts, from the shares and the epochs of its config."""
import dataclasses

from configs import base
from experiments.common.cli import ConfigError, checking
from vmamba_jax import training
from vmamba_jax.core import checks

SCHEDULES = {"constant": (), "cosine": ("cooldown", "cooldown_epochs", "end"), "linear": ("end",), "piecewise": ("boundaries", "factor")}  # fields besides those that all have
CONSTANT_RADIUS = ("standard", "noise", "free", "yopo")  # objectives without a schedule of the radius


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Lengths of a training's parts.

    Attributes:
        epochs: passes over the training images.
        steps, updates: training steps, and updates of the weights; "free" makes several updates per step.
        warmup, decay, cooldown, boundaries: of the learning rate, in updates; `decay` is what warm-up and cool-down leave.
        ramp: steps over which the attack's radius grows from 0; 0: its radius is constant.
    """
    epochs: int
    steps: int
    updates: int
    warmup: int
    decay: int
    cooldown: int
    boundaries: tuple
    ramp: int

    @classmethod
    def of(cls, config, steps):
        """The lengths that config.schedule and config.objective give for a number of steps.

        A share of the training (`warmup`, `cooldown`, `boundaries`, `ramp`) follows config.epochs; `warmup_epochs`, `cooldown_epochs` and
        `ramp_epochs` do not.

        Raises:
            ConfigError: a share and epochs of one part, a part that does not fit into the training, or a ramp shorter than a step.
        """
        schedule, epochs, updates = config.schedule, config.epochs, steps * config.objective.replays
        with checking():
            checks.choice("config.schedule.name", schedule.name, SCHEDULES)
        neutral = base.run().schedule
        for field in dict.fromkeys(field for fields in SCHEDULES.values() for field in fields if field not in SCHEDULES[schedule.name]):
            if schedule[field] != neutral[field]:
                raise ConfigError(f"config.schedule.{field}={schedule[field]!r}: expected {neutral[field]!r} for the {schedule.name} schedule, which does "
                                  "not use it")
        warmup, cooldown = _length(config, "schedule.warmup", updates), _length(config, "schedule.cooldown", updates)
        if schedule.name in ("cosine", "linear") and warmup + cooldown >= updates:
            given = ", ".join(f"config.schedule.{name}={schedule[name]:g}" for name in ("warmup", "warmup_epochs", "cooldown", "cooldown_epochs")
                              if schedule[name] or name == "warmup")
            raise ConfigError(f"{given}: expected to leave some of the {updates} updates ({epochs} epochs) to the cosine")
        boundaries = tuple(round(_share("config.schedule.boundaries", part) * updates) for part in schedule.boundaries)
        return cls(epochs, steps, updates, warmup, updates - warmup - cooldown, cooldown, boundaries, _ramp(config, steps))

    def rate(self, section):
        """The learning-rate schedule of a config's schedule section."""
        options = {"warmup_steps": self.warmup, "warmup_start": section.warmup_start}
        if section.name in ("cosine", "linear"):
            options |= {"total_steps": self.warmup + self.decay, "end": section.end}
        if section.name == "piecewise":
            options |= {"boundaries": list(self.boundaries), "factor": section.factor}
        with checking("config.schedule"):
            return training.schedules.create(section.name, section.learning_rate, **options)

    def text(self, config):
        """A block of lines: steps, and each part of the schedule in steps and epochs."""
        section, per_epoch = config.schedule, self.updates / self.epochs
        part = lambda n, per=per_epoch, unit="updates": f"{n} {unit}, {n / per:.3g} epochs"
        end = section.end if section.name in ("cosine", "linear") else section.learning_rate
        rows = [("steps", f"{self.steps} ({self.epochs} epochs of {self.steps // self.epochs}), {config.batch_size} images each"),
                ("warm-up", f"{part(self.warmup)}: learning rate {section.warmup_start:g} to {section.learning_rate:g}" if self.warmup else "none"),
                (section.name, f"{part(self.decay)}: learning rate {section.learning_rate:g}" + f" to {end:g}" * (section.name in ("cosine", "linear"))),
                ("cool-down", f"{part(self.cooldown)}: learning rate {end:g}" if self.cooldown else "none"),
                ("ramp", f"{part(self.ramp, self.steps / self.epochs, 'steps')}: attack radius from 0" if self.ramp else "none")]
        if self.boundaries:
            rows.insert(3, ("boundaries", f"{', '.join(map(str, self.boundaries))} updates: times {section.factor:g}"))
        return "\n".join(f"  {name:10} {text}" for name, text in rows)


def _length(config, field, total):
    """A part of the training: config.<field> as a share of `total`, or config.<field>_epochs."""
    section, name = field.split(".")
    share, epochs = config[section][name], config[section][f"{name}_epochs"]
    _share(f"config.{field}", share)
    if share and epochs:
        raise ConfigError(f"config.{field}={share:g}, config.{field}_epochs={epochs:g}: expected one of them to be 0")
    if epochs > config.epochs:
        raise ConfigError(f"config.{field}_epochs={epochs:g}: expected at most the {config.epochs} epochs of the training; to take a share of it instead, "
                          f"set this field to 0 and config.{field} to the share")
    return round(epochs / config.epochs * total if epochs else share * total)


def _ramp(config, steps):
    """Steps of the ramp of config.objective."""
    section = config.objective
    given = f"config.objective.ramp_epochs={section.ramp_epochs:g}" if section.ramp_epochs else f"config.objective.ramp={section.ramp:g}"
    if not section.ramp and not section.ramp_epochs:
        return 0
    if section.name in CONSTANT_RADIUS:
        raise ConfigError(f"{given}: expected 0 for the objective {section.name!r}, whose radius is constant")
    n = _length(config, "objective.ramp", steps)
    if not n:
        raise ConfigError(f"{given}: expected 0 for no ramp, or a fraction that covers at least one of the {steps} steps ({1 / steps:.3g} or more)")
    return n


def _share(name, value):
    with checking():
        return checks.number(name, value, low=0, high=1)
