"""Learning-rate schedules as functions of the number of updates done."""
import math

import jax.numpy as jnp
import optax

from vmamba_jax.core import checks


def constant(value, *, warmup_steps=0, warmup_start=0.0):
    """`value`, after a linear warm-up of `warmup_steps` updates from `warmup_start`."""
    checks.number("value", value, low=0)
    _check_warm_up(warmup_steps, warmup_start)
    return _warm_up(optax.constant_schedule(value), value, warmup_steps, warmup_start)


def cosine(value, *, total_steps, warmup_steps=0, warmup_start=0.0, end=0.0):
    """Linear warm-up, then half a cosine from `value` to `end` over the `total_steps - warmup_steps` updates that follow; then `end`.

    The recipe of VMamba (Liu et al. 2024) for a batch of 1024: value 1e-3, warmup_start 1e-6, end 1e-5, 20 of 300 epochs of warm-up.
    """
    checks.number("value", value, low=0)
    checks.number("end", end, low=0)
    checks.count("total_steps", total_steps)
    _check_warm_up(warmup_steps, warmup_start)
    checks.require(warmup_steps < total_steps, f"warmup_steps={warmup_steps}: expected fewer than total_steps={total_steps}")
    length = total_steps - warmup_steps

    def decay(step):
        return end + 0.5 * (value - end) * (1.0 + jnp.cos(math.pi * jnp.clip(step / length, 0.0, 1.0)))

    return _warm_up(decay, value, warmup_steps, warmup_start)


def piecewise(value, *, boundaries, factor=0.1, warmup_steps=0, warmup_start=0.0):
    """`value`, multiplied by `factor` once more from each of `boundaries` (numbers of updates, ascending) on."""
    boundaries = tuple(boundaries)
    checks.number("value", value, low=0)
    checks.number("factor", factor, low=0)
    _check_warm_up(warmup_steps, warmup_start)
    for i, boundary in enumerate(boundaries):
        checks.count(f"boundaries[{i}]", boundary)
    first = boundaries[0] if boundaries else warmup_steps
    checks.require(list(boundaries) == sorted(set(boundaries)), f"boundaries={boundaries}: expected ascending integers")
    checks.require(warmup_steps <= first, f"warmup_steps={warmup_steps}: expected at most boundaries[0]={first}")

    def decay(step):
        passed = sum((jnp.asarray(step + warmup_steps >= b, jnp.float32) for b in boundaries), jnp.zeros(()))
        return value * factor ** passed

    return _warm_up(decay, value, warmup_steps, warmup_start)


def ramp(steps, start=0.0):
    """From `start` to 1, linear over `steps` updates, then 1: a radius warm-up for `objectives.pgd_at(eps_schedule=...)`."""
    checks.count("steps", steps)
    checks.number("start", start, low=0)
    return optax.linear_schedule(start, 1.0, steps)


SCHEDULES = {"constant": constant, "cosine": cosine, "piecewise": piecewise}


def create(name, value, **options):
    """A learning-rate schedule by name, for configs; `options` are that function's keywords."""
    return checks.by_name("schedule", name, SCHEDULES, options, positional=1)(value, **options)


def _check_warm_up(steps, start):
    checks.count("warmup_steps", steps, 0)
    checks.number("warmup_start", start, low=0)


def _warm_up(schedule, value, steps, start):
    """A line from `start` to `value`, then `schedule`, counted from the end of the warm-up."""
    if not steps:
        return schedule
    return optax.join_schedules([optax.linear_schedule(start, value, steps), schedule], [steps])
