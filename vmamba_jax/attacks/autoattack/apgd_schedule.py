"""One run of APGD and its step-size schedules: momentum and halving steps in linf and l2, sparse sign steps in l1; all per image."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.attacks import norms
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.attacks.threat_model import ThreatModel
from vmamba_jax.core.keys import fold_in


def dense_checkpoints(steps, rho):
    """The checkpoints of APGD in linf and l2, (steps + 1,) int.

    Entry j is the number of rising steps since the last checkpoint up to which the step size is halved after step j; -1: no checkpoint. The
    first window between checkpoints is 22% of the steps, each later one 3% of the steps shorter, down to 6%.

    Source: Croce & Hein 2020, section 3.
    """
    limits, window, since = np.full(steps + 1, -1, np.int32), max(int(0.22 * steps), 1), 0
    for j in range(1, steps + 1):
        since += 1
        if since == window:
            limits[j], since = int(window * rho), 0
            window = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return limits


def sparse_checkpoints(steps):
    """The checkpoints of APGD in l1, every 4% of the steps, (steps + 1,) int: 0 at a checkpoint, -1 elsewhere."""
    j = np.arange(steps + 1)
    return np.where((j > 0) & (j % max(int(0.04 * steps), 1) == 0), 0, -1).astype(np.int32)


class DenseSchedule(NamedTuple):
    """Step sizes in linf and l2 (Croce & Hein 2020, algorithm 1). All fields are (batch,)."""
    size: jax.Array      # of a step
    rises: jax.Array     # steps since the last checkpoint that increased the loss
    last: jax.Array      # loss of the previous iterate
    checked: jax.Array   # best loss at the last checkpoint
    halved: jax.Array    # whether the last checkpoint halved the step size

    @classmethod
    def start(cls, threat, images, value):
        zero = 0 * images.reshape(len(images), -1)[:, 0]
        return cls(zero + 2 * threat.eps, zero.astype(jnp.int32), 0 * value, value, zero == 0)

    def update(self, j, checkpoint, threat, images, value, best, best_value):
        """(schedule after evaluating iterate j, which images return to their best iterate (batch,) bool)."""
        # The first rise is counted against 0, as in the reference, whose table of losses is still empty there.
        rises = self.rises + ((value > self.last) & (j > 0))
        checked = jnp.where(j == 0, value, self.checked)
        slow = (rises <= checkpoint) | (~self.halved & (checked >= best_value))
        check = checkpoint >= 0
        halve = check & slow
        return DenseSchedule(jnp.where(halve, self.size / 2, self.size), jnp.where(check, 0, rises), jnp.where(j == 0, self.last, value),
                             jnp.where(check, best_value, checked), jnp.where(check, slow, self.halved)), halve

    def move(self, j, threat, images, x, before, gradient):
        """The iterate after x: a step along the gradient with momentum x - before, which the first step lacks."""
        size = per_image(self.size, images)
        if threat.norm == "linf":
            direction = jnp.sign(gradient)
        else:  # damped as in the reference: where DLR is flat the gradient is rounding noise, which must not become a step
            length = norms.length(gradient, "l2")
            direction = norms.unit(gradient, "l2") * per_image(length / (length + 1e-12), images)
        target = threat.project(images, x + size * direction)
        a = jnp.where(j == 0, 1, 0.75).astype(images.dtype)
        return threat.project(images, x + a * (target - x) + (1 - a) * (x - before))


class SparseSchedule(NamedTuple):
    """Step sizes and sparsity in l1: equal steps on the values of largest gradient, their number derived from the best iterate's changes.

    All fields are (batch,). Source: Croce & Hein 2021, algorithm 1.
    """
    size: jax.Array       # l1 length of a step
    fraction: jax.Array   # of the values that a step moves
    count: jax.Array      # of the values that the best iterate had changed at the last checkpoint

    @classmethod
    def start(cls, threat, images, start=None):
        """start: the iterate an earlier phase ended at, which sets the sparsity; None: the first step moves a fifth of the values."""
        d = images[0].size
        zero = 0 * images.reshape(len(images), -1)[:, 0]
        count = zero + d if start is None else changed(images, start)
        return cls(zero + threat.eps, zero + 0.2 if start is None else count / d / 1.5, count)

    def update(self, j, checkpoint, threat, images, value, best, best_value):
        """(schedule after evaluating iterate j, which images return to their best iterate (batch,) bool)."""
        count, check = changed(images, best), checkpoint >= 0
        sparser = count < 0.95 * self.count
        eps = jnp.asarray(threat.eps, images.dtype)
        size = jnp.where(sparser, eps, jnp.clip(self.size / 1.5, eps / 10, eps))
        now = SparseSchedule(size, count / images[0].size / 1.5, count)
        return jax.tree.map(lambda new, old: jnp.where(check, new, old), now, self), check & sparser

    def move(self, j, threat, images, x, before, gradient):
        """The iterate after x: a sign step on the values of largest gradient, without momentum."""
        d = images[0].size
        a = jnp.abs(gradient.reshape(len(images), -1))
        rank = jnp.clip((1 - self.fraction) * d, 0, d - 1).astype(jnp.int32)
        sign = jnp.where(a >= norms.kth_smallest(a, rank), jnp.sign(gradient).reshape(a.shape), 0)
        step = self.size[:, None] * sign / (jnp.abs(sign).sum(1, keepdims=True) + 1e-10)
        delta = x + step.reshape(x.shape) - images
        return images + norms.l1_in_box(images, delta, jnp.asarray(threat.eps, x.dtype), threat.lower, threat.upper)


class Run(NamedTuple):
    """State of one APGD run."""
    x: jax.Array             # the next iterate (batch, H, W, C)
    before: jax.Array        # the iterate that x was reached from
    best: jax.Array          # iterate of highest loss
    best_gradient: jax.Array
    best_value: jax.Array    # (batch,)
    adversarial: jax.Array   # a misclassified iterate where `success`, else the start
    success: jax.Array       # (batch,) bool, or the highest score
    schedule: DenseSchedule | SparseSchedule


class Phase(NamedTuple):
    """The part of a run at one radius.

    Attributes:
        threat: the threat model; its radius may be traced.
        checkpoints: (steps + 1,) int or longer, of `dense_checkpoints` or `sparse_checkpoints`; may be traced.
        steps: may be traced.
        resumed: an earlier phase of another radius reached the start; the l1 schedule then takes its sparsity from it.
        final: whether misclassified iterates count; may be traced, False at a radius above the attack's.
    """
    threat: ThreatModel
    checkpoints: np.ndarray | jax.Array
    steps: int | jax.Array
    resumed: bool = False
    final: bool | jax.Array = True

    def begin(self, evaluate, images, start, keys):
        """The `Run` before its first evaluation; see `ascend`. keys: the second argument of `evaluate`."""
        zero = 0 * images.reshape(len(images), -1)[:, 0]
        value, success, _ = jax.eval_shape(evaluate, images, keys)
        value = zero.astype(value.dtype)
        if self.threat.norm == "l1":
            schedule = SparseSchedule.start(self.threat, images, start if self.resumed else None)
        else:
            schedule = DenseSchedule.start(self.threat, images, value)
        return Run(start, start, start, 0 * images, value - jnp.inf, start, zero != 0 if success.dtype == bool else zero.astype(success.dtype) - jnp.inf, schedule)


def ascend(phase, evaluate, images, start, keys=None, *, active=None, keep_last=False, numbered=False):
    """The `Run` after a phase's steps from `start`; it evaluates steps + 1 iterates, each once.

    Args:
        phase: the `Phase`.
        evaluate: (x, keys) -> (value (batch,), success (batch,) bool, gradient), see `randomized.value_and_gradient`. success may be a score in
            place of a bool: `adversarial` is then the last iterate of highest score, which `success` of the `Run` holds.
        images: the clean images, (batch, H, W, C).
        start: (batch, H, W, C), inside the phase's threat model.
        keys: one random key per image for a `Randomized` classifier, else None.
        active: (batch,) bool; the run ends early once all of these are misclassified. None: it takes all its steps.
        keep_last: `adversarial` is the last misclassified iterate, as in the reference, instead of the first.
        numbered: evaluate gets the share of the steps that are done, in [0, 1], in place of the keys.
    """
    def second(j):
        return j / phase.steps if numbered else None if keys is None else fold_in(keys, j)

    checkpoints = jnp.asarray(phase.checkpoints)

    def step(state):
        j, run = state
        value, success, gradient = evaluate(run.x, second(j))
        better = value > run.best_value
        scored = success.dtype != bool
        take = success >= run.success if scored else success & (keep_last | ~run.success)
        best, best_gradient = (jnp.where(per_image(better, images), new, old)
                               for new, old in ((run.x, run.best), (gradient, run.best_gradient)))
        best_value = jnp.where(better, value, run.best_value)
        schedule, restart = run.schedule.update(j, checkpoints[j], phase.threat, images, value, best, best_value)
        restart = per_image(restart, images)
        x, gradient = jnp.where(restart, best, run.x), jnp.where(restart, best_gradient, gradient)
        adversarial = jnp.where(per_image(take, images), run.x, run.adversarial)
        # The momentum of step j is the difference from iterate j - 1 to the point that the next step begins at, as in the reference.
        following = schedule.move(j, phase.threat, images, x, jnp.where(j == 0, x, run.before), gradient)
        return j + 1, Run(following, x, best, best_gradient, best_value, adversarial,
                          jnp.maximum(run.success, success) if scored else run.success | success, schedule)

    def unfinished(state):
        j, run = state
        return (j <= phase.steps) & (True if active is None else (active & ~(run.success & phase.final)).any())

    return lax.while_loop(unfinished, step, (0, phase.begin(evaluate, images, start, second(0))))[1]


def changed(images, x):
    """The number of values of each image that differ: (batch,), in the images' dtype."""
    return (x != images).reshape(len(images), -1).sum(1).astype(images.dtype)
