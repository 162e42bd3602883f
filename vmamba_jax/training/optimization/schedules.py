"""Learning-rate schedules as functions of the number of updates done."""
import math

import jax.numpy as jnp
import optax

from vmamba_jax.training.checks import choice, count, number, require


def constant(value, *, warmup_steps=0, warmup_start=0.0):
    """`value`, after a linear warm-up of `warmup_steps` updates from `warmup_start`."""
    require(number("value", value, low=0), *_warm_up_checks(warmup_steps, warmup_start))
    return _warm_up(optax.constant_schedule(value), value, warmup_steps, warmup_start)


def cosine(value, *, total_steps, warmup_steps=0, warmup_start=0.0, end=0.0):
    """Linear warm-up, then half a cosine from `value` to `end` over the `total_steps - warmup_steps` updates that follow; then `end`.

    The recipe of VMamba (Liu et al. 2024) for a batch of 1024: value 1e-3, warmup_start 1e-6, end 1e-5, 20 of 300 epochs of warm-up.
    """
    require(number("value", value, low=0), number("end", end, low=0), count("total_steps", total_steps, 1),
            *_warm_up_checks(warmup_steps, warmup_start))
    require((warmup_steps < total_steps, f"warmup_steps must be below total_steps; got {warmup_steps} and {total_steps}"))
    length = total_steps - warmup_steps

    def decay(step):
        return end + 0.5 * (value - end) * (1.0 + jnp.cos(math.pi * jnp.clip(step / length, 0.0, 1.0)))

    return _warm_up(decay, value, warmup_steps, warmup_start)


def piecewise(value, *, boundaries, factor=0.1, warmup_steps=0, warmup_start=0.0):
    """`value`, multiplied by `factor` once more from each of `boundaries` (numbers of updates, ascending) on."""
    boundaries = tuple(boundaries)
    require(number("value", value, low=0), number("factor", factor, low=0), *_warm_up_checks(warmup_steps, warmup_start),
            *[count(f"boundaries[{i}]", boundary) for i, boundary in enumerate(boundaries)])
    first = boundaries[0] if boundaries else warmup_steps
    require((list(boundaries) == sorted(set(boundaries)), f"boundaries must ascend; got {boundaries}"),
            (warmup_steps <= first, f"warmup_steps must end before boundaries; got {warmup_steps} and {boundaries}"))

    def decay(step):
        passed = sum((jnp.asarray(step + warmup_steps >= b, jnp.float32) for b in boundaries), jnp.zeros(()))
        return value * factor ** passed

    return _warm_up(decay, value, warmup_steps, warmup_start)


def ramp(steps, start=0.0):
    """From `start` to 1, linear over `steps` updates, then 1: a radius warm-up for `objectives.pgd_at(eps_schedule=...)`."""
    require(count("steps", steps, 1), number("start", start, low=0))
    return optax.linear_schedule(start, 1.0, steps)


SCHEDULES = {"constant": constant, "cosine": cosine, "piecewise": piecewise}


def create(name, value, **options):
    """A learning-rate schedule by name, for configs; `options` are that function's keywords."""
    require(choice("schedule name", name, SCHEDULES))
    return SCHEDULES[name](value, **options)


def _warm_up_checks(steps, start):
    return count("warmup_steps", steps, 0), number("warmup_start", start, low=0)


def _warm_up(schedule, value, steps, start):
    """A line from `start` to `value`, then `schedule`, counted from the end of the warm-up."""
    if not steps:
        return schedule
    return optax.join_schedules([optax.linear_schedule(start, value, steps), schedule], [steps])
