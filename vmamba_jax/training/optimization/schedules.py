"""Learning-rate schedules: functions of the number of updates done, as optax takes them."""
import optax

from vmamba_jax.core import checks


def constant(value, *, warmup_steps=0, warmup_start=0.0):
    """`value`, after a linear warm-up.

    Args:
        value: learning rate >= 0.
        warmup_steps: number of updates of the warm-up.
        warmup_start: learning rate at its first update.
    """
    checks.number("value", value, low=0)
    return _warm_up(optax.constant_schedule(value), value, warmup_steps, warmup_start)


def cosine(value, *, total_steps, warmup_steps=0, warmup_start=0.0, end=0.0):
    """Linear warm-up, then half a cosine from `value` to `end` over the remaining `total_steps - warmup_steps` updates; then `end`.

    The recipe of VMamba (Liu et al. 2024) for a batch of 1024: value 1e-3, warmup_start 1e-6, end 1e-5, 20 of 300 epochs of warm-up.

    Args:
        value: learning rate >= 0 after the warm-up.
        total_steps: number of updates until `end`, warm-up included.
        warmup_steps, warmup_start: as of `constant`.
        end: learning rate >= 0 from then on; 0 where value is 0.
    """
    checks.number("value", value, low=0)
    checks.number("end", end, low=0)
    checks.count("total_steps", total_steps, 1)
    checks.count("warmup_steps", warmup_steps, 0)
    if warmup_steps >= total_steps:
        raise ValueError(f"warmup_steps={warmup_steps}: expected fewer than total_steps={total_steps}")
    if value == 0 and end > 0:
        raise ValueError(f"end={end}: expected 0 where value is 0")  # optax has the end as a fraction of the value
    decay = optax.cosine_decay_schedule(value, total_steps - warmup_steps, end / value if value else 0.0)
    return _warm_up(decay, value, warmup_steps, warmup_start)


def linear(value, *, total_steps, warmup_steps=0, warmup_start=0.0, end=0.0):
    """Linear warm-up, then linear from `value` to `end` over the remaining updates; then `end`: MMSegmentation's poly schedule of power 1.

    Args: as of `cosine`.
    """
    checks.number("value", value, low=0), checks.number("end", end, low=0)
    checks.count("total_steps", total_steps, 1), checks.count("warmup_steps", warmup_steps, 0)
    if warmup_steps >= total_steps:
        raise ValueError(f"warmup_steps={warmup_steps}: expected fewer than total_steps={total_steps}")
    return _warm_up(optax.linear_schedule(value, end, total_steps - warmup_steps), value, warmup_steps, warmup_start)


def piecewise(value, *, boundaries, factor=0.1, warmup_steps=0, warmup_start=0.0):
    """`value`, multiplied by `factor` at each of `boundaries`.

    Args:
        value: learning rate >= 0 after the warm-up.
        boundaries: ascending numbers of updates; each applies from that update on.
        factor: >= 0.
        warmup_steps, warmup_start: as of `constant`; the warm-up must end by the first boundary.
    """
    boundaries = tuple(boundaries)
    checks.number("value", value, low=0)
    checks.number("factor", factor, low=0)
    for i, boundary in enumerate(boundaries):
        checks.count(f"boundaries[{i}]", boundary)
    checks.count("warmup_steps", warmup_steps, 0)
    if list(boundaries) != sorted(set(boundaries)):
        raise ValueError(f"boundaries={boundaries}: expected ascending numbers of updates")
    if boundaries and warmup_steps > boundaries[0]:
        raise ValueError(f"warmup_steps={warmup_steps}: expected at most the first of boundaries={boundaries}")
    decay = optax.piecewise_constant_schedule(value, {boundary - warmup_steps: factor for boundary in boundaries})
    return _warm_up(decay, value, warmup_steps, warmup_start)


def ramp(steps, start=0.0):
    """From `start` to 1, linear over `steps` updates, then 1: a radius warm-up for `objectives.pgd_at(eps_schedule=...)`.

    Args:
        steps: number of updates >= 1.
        start: factor >= 0 at the first update.
    """
    checks.count("steps", steps, 1)
    checks.number("start", start, low=0)
    return optax.linear_schedule(start, 1.0, steps)


SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear, "piecewise": piecewise}


def create(name, value, **options):
    """A learning-rate schedule by name, for configs.

    Args:
        name: a key of `SCHEDULES`.
        value, **options: that function's arguments.
    """
    return checks.by_name("schedule", name, SCHEDULES, options, positional=1)(value, **options)


def _warm_up(schedule, value, steps, start):
    """Linear from `start` to `value`, then `schedule`, which counts from the end of the warm-up."""
    checks.count("warmup_steps", steps, 0)
    checks.number("warmup_start", start, low=0)
    return optax.join_schedules([optax.linear_schedule(start, value, steps), schedule], [steps]) if steps else schedule
