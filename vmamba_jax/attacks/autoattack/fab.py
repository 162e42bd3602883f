"""Fast adaptive boundary attack (FAB): projections onto linearized decision boundaries."""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses, norms
from vmamba_jax.attacks.autoattack.search import DUAL, Search, first_successes, ranked_targets
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core import checks
from vmamba_jax.core.keys import attempt_keys, fold_in
from vmamba_jax.core.records import record


@record("eps", "alpha_max", "eta", "beta")
class FAB(Search):
    """Fast adaptive boundary attack, untargeted or towards `n_targets` classes in turn.

    It searches for the smallest misclassified perturbation, whatever the radius. Per image it returns a misclassified point within `eps`,
    or the clean image if none was found or if it is misclassified already. Untargeted, each step takes one gradient per class.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: linearizations >= 1 per run.
        norm: "linf", "l2" or "l1".
        restarts: runs, per target; the first starts at the image, the others at random points within half the radius.
        n_targets: number of classes to attack towards, those of rank 2, 3, ... of the clean logits; None: untargeted.
        alpha_max: largest weight of the step from the clean image.
        eta: overshoot across the boundary.
        beta: fraction of the perturbation that is retained after a misclassified point.
        keep: "first_hit": the first point within the radius; "smallest": the smallest of the first run that has one.
        bounds: lowest and highest value of a pixel.

    Source: Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack", algorithm 1.
    """
    eps: float
    steps: int = 100
    norm: str = "linf"
    _: dataclasses.KW_ONLY
    restarts: int = 1
    n_targets: int | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    keep: str = "smallest"
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "fab"

    def __post_init__(self):
        super().__post_init__()
        self._set(steps=checks.count("steps", self.steps), restarts=checks.count("restarts", self.restarts))
        self._set(**{name: checks.number(name, getattr(self, name), low=0) for name in ("alpha_max", "eta", "beta")})
        if self.n_targets is not None:
            self._set(n_targets=checks.count("n_targets", self.n_targets))
        checks.choice("keep", self.keep, ("first_hit", "smallest"))

    @property
    def needs_key(self):
        return f"restarts={self.restarts}" if self.restarts > 1 else None

    def search(self, logits_fn, images, labels, keys, clean, active):
        targets = None if self.n_targets is None else ranked_targets(clean, self.n_targets)

        def attempt(i, left):
            start = images
            if self.restarts > 1:
                start = jnp.where(i % self.restarts == 0, images, self._near(images, attempt_keys(keys, i, self.restarts)))
            linearize = (nearest_plane(logits_fn, labels, self.norm) if targets is None else
                         plane(logits_fn, labels, targets[:, i // self.restarts]))
            adversarial, size = self.approach(logits_fn, linearize, images, labels, start, left)
            return adversarial, size <= self.eps
        return first_successes(attempt, images, active, (self.n_targets or 1) * self.restarts)

    def approach(self, logits_fn, linearize, images, labels, start, active=None):
        """One run: (smallest misclassified points found, or the images; their distances (batch,), infinite if none was found).

        With keep="first_hit" an image is done once it has a point within the radius.

        Args:
            logits_fn: images -> logits.
            linearize: x -> (f (batch,), its gradient at x), where f is 0 at the decision boundary.
            images, labels: (batch, H, W, C), (batch,).
            start: (batch, H, W, C), the first iterate.
            active: (batch,) bool; the run ends when all of these are done. None: it takes all its steps.
        """
        stop = self.keep == "first_hit"
        lower, upper = self.bounds
        eps, n = jnp.asarray(self.eps, images.dtype), len(images)
        base = images.reshape(n, -1)

        def unfinished(state):
            i, _, _, size = state
            return (i < self.steps) & (True if active is None else ((size > eps) & active).any() if stop else active.any())

        def step(state):
            i, x, adversarial, smallest = state
            f, w = linearize(x)
            b = (w * x).reshape(n, -1).sum(1) - f
            w = w.reshape(n, -1)
            both, w2, b2 = (jnp.concatenate(pair) for pair in ((x.reshape(n, -1), base), (w, w), (b, b)))
            changes = project_to_plane(self.norm, both, w2, b2, lower, upper)
            sizes = jnp.maximum(norms.length(changes, self.norm), 1e-8)
            alpha = per_image(jnp.minimum(sizes[:n] / (sizes[:n] + sizes[n:]), self.alpha_max), images)
            here, there = (change.reshape(images.shape) for change in (changes[:n], changes[n:]))
            x = jnp.clip((x + self.eta * here) * (1 - alpha) + (images + self.eta * there) * alpha, lower, upper).astype(images.dtype)
            success = ~losses.correct(losses.checked(logits_fn(x), x), labels)
            size = norms.length(x - images, self.norm)
            better = success & (size < smallest)
            if stop:
                better &= smallest > eps
            adversarial = jnp.where(per_image(better, images), x, adversarial)
            x = jnp.where(per_image(success, images), images + (x - images) * self.beta, x).astype(images.dtype)
            return i + 1, x, adversarial, jnp.where(better, size, smallest)

        return lax.while_loop(unfinished, step, (0, start, images, 0 * base[:, 0] + jnp.inf))[2:]

    def _near(self, images, keys):
        """A random point half the radius away, clipped to the box."""
        direction = norms.random_direction(images, fold_in(keys, 0), self.norm)
        half = jnp.asarray(self.eps, images.dtype) / 2
        return jnp.clip(images + half * direction / per_image(norms.length(direction, self.norm), images), *self.bounds)


def plane(logits_fn, labels, targets):
    """The function x -> (z_t - z_y (batch,), its gradient) for the target classes t."""
    def linearize(x):
        def total(x):
            logits = losses.checked(logits_fn(x), x)
            f = losses.at(logits, targets) - losses.at(logits, labels)
            return f.sum(), f
        (_, f), gradient = jax.value_and_grad(total, has_aux=True)(x)
        return f, jnp.nan_to_num(gradient)
    return linearize


def nearest_plane(logits_fn, labels, norm):
    """The function x -> (z_c - z_y (batch,), its gradient) for each image's class c whose linearized boundary is nearest."""
    dual = DUAL[norm]

    def linearize(x):
        logits, pull = jax.vjp(lambda x: losses.checked(logits_fn(x), x), x)

        def compare(c, best):
            nearest, f, gradient = best
            difference = logits[:, c] - losses.at(logits, labels)
            own = jax.nn.one_hot(c, logits.shape[1], dtype=logits.dtype) - jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
            w = jnp.nan_to_num(pull(own)[0])
            distance = jnp.where(labels == c, jnp.inf, jnp.abs(difference) / (norms.length(w, dual) + 1e-12))
            nearer = distance < nearest
            return (jnp.where(nearer, distance, nearest), jnp.where(nearer, difference, f), jnp.where(per_image(nearer, x), w, gradient))
        zero = 0 * logits[:, 0]
        distance = zero.astype(jnp.promote_types(logits.dtype, x.dtype)) + jnp.inf
        return lax.fori_loop(0, logits.shape[1], compare, (distance, zero, 0 * x))[1:]
    return linearize


def project_to_plane(norm, t, w, b, lower, upper):
    """The change d of least norm with <w, t + d> = b and t + d within [lower, upper]; to the box's corner if none reaches the plane.

    <w, t> - b is distributed over the values, each limited by its distance to the box's side: in linf equal lengths theta, in l2 lengths
    theta * |w|, in l1 the full distances from the largest |w| down.

    Args:
        norm: "linf", "l2" or "l1".
        t, w: (batch, d).
        b: (batch,).
        lower, upper: bounds of a pixel value.

    Source: Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack".
    """
    gap = (w * t).sum(1) - b
    w, gap = w * jnp.where(gap >= 0, 1, -1)[:, None], jnp.abs(gap)[:, None]
    largest = jnp.abs(w).max(1, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)  # squares of small gradients would underflow
    w, gap = w / scale, gap / scale
    weight = jnp.where(jnp.abs(w) > 1e-8, jnp.abs(w), 0)
    limit = jnp.where(w > 0, t - lower, upper - t)
    lengths = {"linf": lambda: jnp.minimum(_theta(weight, jnp.ones_like(w), limit, gap), limit),
               "l2": lambda: jnp.minimum(_theta(weight, weight, limit, gap) * weight, limit),
               "l1": lambda: _largest_first(weight, limit, gap)}[norm]()
    return jnp.where(weight > 0, -jnp.sign(w) * lengths, 0)


def _theta(weight, speed, limit, gap):
    """The theta with sum(weight * min(theta * speed, limit)) = gap, as (batch, 1); if none, one with every value at its limit.

    The sum is concave and piecewise linear in theta: Newton's method ascends to the root from 0, exactly and in a few steps.
    """
    def improve(state):
        theta, moving = state
        free = theta * speed < limit
        slope = jnp.where(free, weight * speed, 0).sum(1, keepdims=True)
        full = jnp.where(free, 0, weight * limit).sum(1, keepdims=True)
        reach = jnp.where(slope > 0, (gap - full) / jnp.where(slope > 0, slope, 1), jnp.inf)
        out = ~(slope > 0) & (gap > full)
        better = jnp.where(out, jnp.finfo(limit.dtype).max, jnp.where(slope > 0, reach, theta))
        moving &= better > theta * (1 + 4 * jnp.finfo(limit.dtype).eps)
        return jnp.where(moving, better, theta), moving

    theta = 0 * gap
    return lax.while_loop(lambda state: state[1].any(), improve, (theta, theta == 0))[0]


def _largest_first(weight, limit, gap):
    """Full limits of the values of largest weight until the gap is closed, in proportion among tied last ones: lengths (batch, d)."""
    worth = weight * limit
    small = norms.smallest_where(1 - weight, lambda mask: jnp.where(mask, worth, 0).sum(1, keepdims=True) >= gap)
    whole, last = 1 - weight < small, 1 - weight == small
    rest = gap - jnp.where(whole, worth, 0).sum(1, keepdims=True)
    ties = jnp.where(last, worth, 0).sum(1, keepdims=True)
    part = jnp.clip(rest / jnp.where(ties > 0, ties, 1), 0, 1)
    return jnp.where(whole, limit, jnp.where(last, part * limit, 0))


fab = FAB
