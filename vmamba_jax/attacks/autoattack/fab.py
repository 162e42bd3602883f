"""FAB: to the nearest decision boundary by projections onto linearised ones."""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses, norms
from vmamba_jax.attacks.autoattack import hyperplane
from vmamba_jax.attacks.autoattack.search import Search, first_hits, ranked_targets
from vmamba_jax.attacks.directions import noise
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core import checks
from vmamba_jax.core.keys import attempt_keys, fold_in
from vmamba_jax.core.records import record


@record("eps", "alpha_max", "eta", "beta")
class FAB(Search):
    """Fast adaptive boundary attack (Croce & Hein 2020, algorithm 1), towards given classes where `n_targets` is given.

    It looks for the smallest change whatever the radius. Per image a misclassified point within `eps` is returned, the clean image where
    none was found (or where that is misclassified already). Untargeted, each step takes one gradient per class.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: linearisations >= 1 of each run.
        norm: "linf", "l2" or "l1".
        restarts: runs, per target; the first begins at the image, the others within half the radius at random.
        n_targets: None, or attack towards this many classes in turn, those of rank 2, 3, ... of the clean logits.
        alpha_max: largest weight of the way from the clean image.
        eta: overshoot over the boundary.
        beta: share of the change that is kept after a misclassified point.
        keep: "first_hit", the first point within the radius, or "smallest" of the first run that has one.
        bounds: lowest and highest value of a pixel.
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
    def draws(self):
        return f"restarts={self.restarts}" if self.restarts > 1 else None

    def search(self, logits_fn, images, labels, keys, clean, standing):
        targets = None if self.n_targets is None else ranked_targets(clean, self.n_targets)

        def attempt(i, left):
            start = images
            if self.restarts > 1:
                start = jnp.where(i % self.restarts == 0, images, self._near(images, attempt_keys(keys, i, self.restarts)))
            linearise = (nearest_plane(logits_fn, labels, self.norm) if targets is None else
                         plane(logits_fn, labels, targets[:, i // self.restarts]))
            adversarial, size = self.approach(logits_fn, linearise, images, labels, start, left, stop=self.keep == "first_hit")
            return adversarial, size <= self.eps
        return first_hits(attempt, images, standing, (self.n_targets or 1) * self.restarts)

    def approach(self, logits_fn, linearise, images, labels, start, standing=None, *, stop=False):
        """One run: (smallest misclassified points found, the images where none was; their distances (batch,), infinite where none was).

        `linearise` maps x to (f (batch,), its gradient at x): the boundary is where f is 0. With `stop` an image is left alone once it has
        a point within the radius, and the run ends when all `standing` (batch,) bool have.
        """
        lower, upper = self.bounds
        eps, n = jnp.asarray(self.eps, images.dtype), len(images)
        base = images.reshape(n, -1)

        def unfinished(state):
            i, _, _, size = state
            return (i < self.steps) & (True if standing is None else ((size > eps) & standing).any() if stop else standing.any())

        def step(state):
            i, x, adversarial, smallest = state
            f, w = linearise(x)
            b = (w * x).reshape(n, -1).sum(1) - f
            w = w.reshape(n, -1)
            both, w2, b2 = (jnp.concatenate(pair) for pair in ((x.reshape(n, -1), base), (w, w), (b, b)))
            ways = hyperplane.shortest(self.norm, both, w2, b2, lower, upper)
            sizes = jnp.maximum(norms.length(ways, self.norm), 1e-8)
            alpha = per_image(jnp.minimum(sizes[:n] / (sizes[:n] + sizes[n:]), self.alpha_max), images)
            here, there = (way.reshape(images.shape) for way in (ways[:n], ways[n:]))
            x = jnp.clip((x + self.eta * here) * (1 - alpha) + (images + self.eta * there) * alpha, lower, upper).astype(images.dtype)
            hit = losses.checked(logits_fn(x), x).argmax(1) != labels
            size = norms.length(x - images, self.norm)
            better = hit & (size < smallest)
            if stop:
                better &= smallest > eps
            adversarial = jnp.where(per_image(better, images), x, adversarial)
            x = jnp.where(per_image(hit, images), images + (x - images) * self.beta, x).astype(images.dtype)
            return i + 1, x, adversarial, jnp.where(better, size, smallest)

        return lax.while_loop(unfinished, step, (0, start, images, 0 * base[:, 0] + jnp.inf))[2:]

    def _near(self, images, keys):
        """A random point half the radius away, clipped to the box."""
        drawn = noise(images, fold_in(keys, 0), self.norm)
        half = jnp.asarray(self.eps, images.dtype) / 2
        return jnp.clip(images + half * drawn / per_image(norms.length(drawn, self.norm), images), *self.bounds)


def plane(logits_fn, labels, targets):
    """The function x -> (z_t - z_y (batch,), its gradient), towards the target classes t."""
    def linearise(x):
        def total(x):
            logits = losses.checked(logits_fn(x), x)
            f = losses.at(logits, targets) - losses.at(logits, labels)
            return f.sum(), f
        (_, f), gradient = jax.value_and_grad(total, has_aux=True)(x)
        return f, jnp.nan_to_num(gradient)
    return linearise


def nearest_plane(logits_fn, labels, norm):
    """The function x -> (z_c - z_y (batch,), its gradient) of each image's class c whose linearised boundary is nearest."""
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]

    def linearise(x):
        logits, pull = jax.vjp(lambda x: losses.checked(logits_fn(x), x), x)

        def consider(c, best):
            nearest, f, gradient = best
            difference = logits[:, c] - losses.at(logits, labels)
            own = jax.nn.one_hot(c, logits.shape[1], dtype=logits.dtype) - jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
            w = jnp.nan_to_num(pull(own)[0])
            distance = jnp.where(labels == c, jnp.inf, jnp.abs(difference) / (norms.length(w, dual) + 1e-12))
            nearer = distance < nearest
            return (jnp.where(nearer, distance, nearest), jnp.where(nearer, difference, f), jnp.where(per_image(nearer, x), w, gradient))
        zero = 0 * logits[:, 0]
        distance = zero.astype(jnp.promote_types(logits.dtype, x.dtype)) + jnp.inf
        return lax.fori_loop(0, logits.shape[1], consider, (distance, zero, 0 * x))[1:]
    return linearise


fab = FAB
