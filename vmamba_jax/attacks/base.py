"""What all attacks share: the call, the checks, the settings on record."""
import dataclasses

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.directions import ascent
from vmamba_jax.attacks.threat_model import ThreatModel
from vmamba_jax.core import checks, records
from vmamba_jax.core.keys import image_keys


class Attack(records.Described):
    """A pure function `attack(logits_fn, images, labels, key=None) -> adversarial`, described by its fields.

    A subclass is a `records.record` with the fields eps, norm, loss, targeted, l1_fraction, bounds among its own, a class attribute `name`,
    and `run(logits_fn, images, labels, keys)`. Nothing is jitted, and every loop is a `lax` loop. No field may be called `lower`: `jax.jit`
    copies them onto the jitted function, which has a method of that name.
    """
    name = None
    random_start = False
    projection = "nearest"

    def __call__(self, logits_fn, images, labels, key=None):
        """Adversarial images, of the shape and dtype of `images`, inside the threat model.

        Args:
            logits_fn: images -> logits (batch, classes), differentiable in the images.
            images: (batch, H, W, C), floating, within `bounds`.
            labels: (batch,) integers: the true classes, or the targets of a targeted attack.
            key: one random key (image i then draws from `fold_in(key, i)`) or one per image; None if the attack draws nothing.
        """
        checks.batch(images, labels, *self.bounds)
        if key is None and self.draws:
            raise ValueError(f"key=None: expected a random key, as {self.draws}")
        keys = None if key is None else image_keys(key, len(images))
        return self.run(logits_fn, images, labels, keys)

    @property
    def draws(self):
        """Why the attack needs a key, in words; None if it draws nothing."""
        return "random_start=True" if self.random_start else None

    @property
    def threat_model(self):
        lower, upper = self.bounds
        return ThreatModel(self.norm, self.eps, lower=lower, upper=upper, projection=self.projection)

    @property
    def settings(self):
        """Name and fields as plain values for a results file; `attacks.create(**settings)` makes the attack again."""
        def plain(value):
            if checks.traced(value):
                return "traced"
            if isinstance(value, tuple):
                return list(value)
            return getattr(value, "__name__", repr(value)) if callable(value) else value
        unused = () if self.norm == "l1" else ("l1_fraction", "projection")
        return {"name": self.name} | {name: plain(getattr(self, name)) for name in self.options() if name not in unused}

    @classmethod
    def options(cls):
        return [field.name for field in dataclasses.fields(cls)]

    def __post_init__(self):
        if not isinstance(self.bounds, (tuple, list)) or len(self.bounds) != 2:
            raise TypeError(f"bounds={self.bounds!r}: expected a pair (lower, upper)")
        threat = self.threat_model  # checks norm, eps, both bounds, projection
        self._set(eps=threat.eps, bounds=(threat.lower, threat.upper), targeted=checks.flag("targeted", self.targeted))
        self._check_loss()
        if self.l1_fraction is not None:
            fraction = checks.number("l1_fraction", self.l1_fraction)
            if not 0 < fraction <= 1:
                raise ValueError(f"l1_fraction={fraction:g}: expected None or a share of the values in (0, 1]")
            self._set(l1_fraction=fraction)

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
            raise ValueError(f"restarts={self.restarts} with random_start=False: expected restarts=1, as all would be the same")

    def _tools(self, logits_fn, labels):
        """(threat model, objective, gradient, ascent direction) of this attack at these labels."""
        threat = self.threat_model
        evaluate = losses.objective(logits_fn, labels, self.loss, self.targeted)
        return threat, evaluate, losses.ascent_gradient(evaluate), ascent(threat, self.l1_fraction)
