"""The interface of all attacks: the call, argument checks, settings, cost, and restarts."""
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses, precision
from vmamba_jax.attacks.norms import ascent, per_image
from vmamba_jax.attacks.threat_model import ThreatModel
from vmamba_jax.core import checks, records
from vmamba_jax.core.keys import fold_in, image_keys


class Passes(NamedTuple):
    """Passes of an attack through a deterministic classifier, per image.

    Attributes:
        forward_backward: forward passes whose gradient is taken.
        forward: forward passes without a gradient.
    """
    forward_backward: int
    forward: int = 0


class Attack(records.Described):
    """A pure function `attack(logits_fn, images, labels, key=None) -> adversarial`, described by its fields.

    A subclass is a `records.record` with a field `bounds`, a class attribute `name`, and `run(logits_fn, images, labels, keys)`. The call itself
    is not compiled, and every loop is a `lax` loop; `jit` returns the compiled form. No field may be called `lower`: `jax.jit` copies fields onto the jitted function, which has a
    method of that name.

    Attributes:
        name: the attack's name in `attacks.create`.
        needs_key: why the attack needs a random key, in words; None: it needs none.
        passes: `Passes` per image; None: the number depends on the images.
    """
    name = None
    needs_key = None
    passes = None

    def __call__(self, logits_fn, images, labels, key=None, **inputs):
        """Adversarial images, of the shape and dtype of `images`.

        An empty batch is returned as it is.

        Args:
            logits_fn: images -> logits (batch, classes), differentiable in the images.
            images: (batch, H, W, C), floating, within `bounds`. Images of a 16-bit type are attacked in float32, and `logits_fn` gets
                them rounded to their type, towards the clean image, so that the result is within the radius.
            labels: (batch,) integers in [0, classes): the true classes, or the targets of a targeted attack. Inside `jax.jit` their values
                are not checked.
            key: one random key (image i uses `fold_in(key, i)`) or one per image; None: only for attacks without random numbers.
            inputs: further arguments of the attack's `run`; most attacks have none.
        """
        self._check_call(images, labels, key, **inputs)
        keys = None if key is None else image_keys(key, len(images))
        if not len(images):
            return images
        if precision.narrow(images):
            found = self.run(precision.widened(logits_fn, images), images.astype(jnp.float32), labels, keys, **inputs)
            return precision.rounded_towards(images, found)
        return self.run(logits_fn, images, labels, keys, **inputs)

    def _check_call(self, images, labels, key, **inputs):
        """Check the arguments of a call; `inputs` are those of `run`."""
        del inputs
        checks.batch(images, labels, *self.bounds)
        self._check_key(key)

    def _check_key(self, key):
        if key is None and self.needs_key:
            raise ValueError(f"key=None: expected a random key, as {self.needs_key}")

    def jit(self, logits_fn):
        """The attack on one classifier as a compiled function `(images, labels, key=None, **inputs) -> adversarial`.

        The result is the one of the call. The function compiles once per shape of the images, and never uses weights of an earlier call:

        - weights that are leaves of `logits_fn` (`vmamba_jax.classifier`, `vmamba_jax.logits_fn`, a `jax.tree_util.Partial` of a function without
          a closure) are arguments of the program.
        - Any other function is traced again at every call, which takes milliseconds for a small model and seconds for a large one, and compiled
          again if it reads other values than before: weights of its closure, of globals, of attributes.
        - A function of `jax.jit` keeps what it read when it was called first, here as everywhere.

        Args:
            logits_fn: images -> logits, as for the call; any callable.

        Raises:
            TypeError: `logits_fn` is not callable.
        """
        from vmamba_jax.attacks.jitted import JittedAttack
        return JittedAttack(self, logits_fn)

    @property
    def settings(self):
        """Name and fields as plain values for a results file; `attacks.create(**settings)` makes the attack again."""
        def plain(value):
            if checks.traced(value):
                return "traced"
            if isinstance(value, tuple):
                return list(value)
            return getattr(value, "__name__", repr(value)) if callable(value) else value
        return {"name": self.name} | {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


class NormAttack(Attack):
    """Base class of the attacks whose perturbation is bounded by a norm: the result is inside `threat_model`.

    A subclass has the fields eps, norm, loss, targeted, l1_fraction and bounds, or class attributes of these names.
    """
    random_start = False
    projection = "nearest"

    @property
    def needs_key(self):
        return "random_start=True" if self.random_start else None

    @property
    def threat_model(self):
        lower, upper = self.bounds
        return ThreatModel(self.norm, self.eps, lower=lower, upper=upper, projection=self.projection)

    @property
    def settings(self):
        unused = () if self.norm == "l1" else ("l1_fraction", "projection")
        return {name: value for name, value in super().settings.items() if name not in unused}

    def __post_init__(self):
        if not isinstance(self.bounds, (tuple, list)) or len(self.bounds) != 2:
            raise TypeError(f"bounds={self.bounds!r}: expected a pair (lower, upper)")
        threat = self.threat_model  # checks norm, eps, both bounds, projection
        self._set(eps=threat.eps, bounds=(threat.lower, threat.upper), targeted=checks.flag("targeted", self.targeted))
        self._check_loss()
        if self.l1_fraction is not None:
            self._set(l1_fraction=checks.number("l1_fraction", self.l1_fraction, above=0, high=1, optional=True))

    def _check_loss(self):
        losses.get(self.loss)

    def _check_iterations(self):
        """Check the fields of an iterated attack: steps, step_size, random_start, restarts."""
        self._set(steps=checks.count("steps", self.steps), restarts=checks.count("restarts", self.restarts),
                  random_start=checks.flag("random_start", self.random_start))
        size = 2.5 * self.eps / self.steps if self.step_size is None else checks.number("step_size", self.step_size, low=0)
        if not checks.traced(size) and size == 0 and not checks.traced(self.eps) and self.eps > 0:
            raise ValueError(f"step_size=0 with eps={self.eps:g}: expected a step_size > 0")
        self._set(step_size=size)
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts={self.restarts} with random_start=False: expected restarts=1, as every restart would be the same")

    def _tools(self, logits_fn, labels):
        """(threat model, objective, gradient, ascent direction) of this attack for a classifier and labels."""
        threat = self.threat_model
        evaluate = losses.objective(logits_fn, labels, self.loss, self.targeted)
        return threat, evaluate, losses.ascent_gradient(evaluate), ascent(threat, self.l1_fraction)


def worst_of(search, evaluate, images, keys, restarts):
    """The worst case over restarts, per image: a misclassified image is preferred, then the higher loss.

    Restart r folds r into the keys, so more restarts only add candidates. A single restart is not evaluated, which saves one pass.

    Args:
        search: keys -> adversarial (batch, H, W, C).
        evaluate: adversarial -> (value (batch,), success (batch,) bool), see `losses.objective`.
        images: (batch, H, W, C), for shape and dtype.
        keys: one random key per image.
        restarts: number of runs >= 1.
    """
    if restarts == 1:
        return search(fold_in(keys, 0))

    def attempt(r, best):
        best_images, best_value, best_success = best
        found = search(fold_in(keys, r))
        value, success = evaluate(found)
        # `not <` rather than `>=`, so that a NaN, new or already stored, is always replaced
        better = (success & ~best_success) | ((success == best_success) & ~(value < best_value))
        return (jnp.where(per_image(better, images), found, best_images), jnp.where(better, value, best_value), success | best_success)

    # The initial values are computed from the images: under shard_map they must vary over the devices, as the results do.
    zero = 0 * images.reshape(len(images), -1)[:, 0]
    value = (zero - jnp.inf).astype(jnp.promote_types(images.dtype, jnp.float32))
    return lax.fori_loop(0, restarts, attempt, (images, value, zero != 0))[0]
