"""PGD on randomized classifiers by expectation over transformation (EOT)."""
import dataclasses

import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.base import Passes, worst_of
from vmamba_jax.attacks.gradient.pgd import PGD
from vmamba_jax.core import checks
from vmamba_jax.core.keys import fold_in
from vmamba_jax.core.records import record


@record("eps", "step_size")
class EOTPGD(PGD):
    """PGD on a randomized classifier: every step follows the gradient of the loss averaged over new draws (torchattacks' EOTPGD).

    The call takes `logits_fn(images, keys)` (see `randomized`) and always a random key. It averages gradients of the loss; to average
    predictions, attack `expected_logits`.

    Args:
        samples: draws per step >= 1.
        restarts: compared by the mean loss over new draws; an image misclassified in more than half of them is preferred.
        eps, steps, step_size, norm, random_start, start, loss, targeted, l1_fraction, projection, bounds: see `pgd`.
    """
    _: dataclasses.KW_ONLY
    samples: int = 2

    name = "eot_pgd"
    needs_key = "the classifier is randomized"

    def __post_init__(self):
        super().__post_init__()
        self._set(samples=checks.count("samples", self.samples))

    @property
    def passes(self):
        return Passes(*(self.samples * n for n in super().passes))

    def run(self, logits_fn, images, labels, keys):
        threat, _, _, direction = self._tools(logits_fn, labels)
        size = jnp.asarray(self.step_size, images.dtype)

        def evaluate_once(x, keys):
            return losses.objective(lambda x: logits_fn(x, keys), labels, self.loss, self.targeted)(x)

        def gradient(x, keys):
            def add(j, total):
                return total + losses.ascent_gradient(lambda x: evaluate_once(x, fold_in(keys, j)))(x)
            return lax.fori_loop(0, self.samples, add, 0 * x) / self.samples

        def search(keys):
            start = self._start(images, keys) if self.random_start else images
            step = lambda i, x: threat.project(images, x + size * direction(gradient(x, fold_in(keys, i)), x))
            return lax.fori_loop(0, self.steps, step, start)

        def evaluate(x):
            own = fold_in(keys, self.restarts)  # the searches use 0 to restarts - 1
            value, success = lax.map(lambda j: evaluate_once(x, fold_in(own, j)), jnp.arange(self.samples))
            return value.mean(0), success.mean(0) > 0.5
        return worst_of(search, evaluate, images, keys, self.restarts)


eot_pgd = EOTPGD
