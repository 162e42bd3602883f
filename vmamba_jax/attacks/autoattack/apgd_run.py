"""One run of APGD from a given start: what the attack repeats over restarts, targets and radii."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.autoattack.apgd_schedule import Dense, Sparse
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core.keys import fold_in


class Run(NamedTuple):
    """Where a run stands. `adversarial` is a misclassified iterate where `hit`, else the start."""
    x: jax.Array             # the next iterate (batch, H, W, C)
    before: jax.Array        # the iterate that x was reached from
    best: jax.Array          # iterate of highest loss
    best_gradient: jax.Array
    best_value: jax.Array    # (batch,)
    adversarial: jax.Array
    hit: jax.Array           # (batch,) bool
    pace: Dense | Sparse


def climb(evaluate, threat, images, start, limits, steps, *, keys=None, standing=None, final=True, last=False, phase=False):
    """Ascend for `steps` steps from `start`, which lies in the threat model; evaluates steps + 1 iterates, each once.

    Args:
        evaluate: (x, keys) -> (value (batch,), hit (batch,), gradient).
        threat: the threat model; its radius may be traced.
        limits: checkpoints, (steps + 1,) or longer; see `apgd_pace`. May be traced.
        steps: may be traced.
        keys: one per image, for a classifier that draws; else None.
        standing: (batch,) bool; the run ends early when all of these are hit. None: it takes all its steps.
        final: whether a hit counts as one; may be traced, False in a phase of larger radius.
        last: `adversarial` is the last misclassified iterate, as in the reference, instead of the first.
        phase: `start` was reached under another radius; sparse steps then take their sparsity from it.
    """
    limits = jnp.asarray(limits)

    def step(state):
        j, run = state
        value, hit, gradient = evaluate(run.x, None if keys is None else fold_in(keys, j))
        better, take = value > run.best_value, hit & (last | ~run.hit)
        best, best_gradient = (jnp.where(per_image(better, images), new, old)
                               for new, old in ((run.x, run.best), (gradient, run.best_gradient)))
        best_value = jnp.where(better, value, run.best_value)
        pace, back = run.pace.observe(j, limits[j], threat, images, value, best, best_value)
        back = per_image(back, images)
        x, gradient = jnp.where(back, best, run.x), jnp.where(back, best_gradient, gradient)
        adversarial = jnp.where(per_image(take, images), run.x, run.adversarial)
        # The momentum of iterate j is the way from iterate j - 1 to where the next step begins, as in the reference.
        return j + 1, Run(pace.move(j, threat, images, x, jnp.where(j == 0, x, run.before), gradient), x, best, best_gradient, best_value,
                          adversarial, run.hit | hit, pace)

    def unfinished(state):
        j, run = state
        return (j <= steps) & (True if standing is None else (standing & ~(run.hit & final)).any())

    return lax.while_loop(unfinished, step, (0, begin(evaluate, threat, images, start, keys, phase)))[1]


def begin(evaluate, threat, images, start, keys, phase=False):
    """The run before its first evaluation; see `climb`."""
    zero = 0 * images.reshape(len(images), -1)[:, 0]
    value = zero.astype(jax.eval_shape(evaluate, images, keys)[0].dtype)
    pace = Sparse.start(threat, images, start if phase else None) if threat.norm == "l1" else Dense.start(threat, images, value)
    return Run(start, start, start, 0 * images, value - jnp.inf, start, zero != 0, pace)
