"""Attacks on randomised models: expectation over their draws (EOT, Athalye et al. 2018, section 3).

A randomised model is a function `logits_fn(images, keys) -> logits` with one random key per image, from which, and from nothing else, the image's
randomness comes: its logits do not depend on the batch, and equal keys give equal draws. `expected_logits` makes a plain model of it, for every
attack and for judging; `eot_pgd` attacks it with new draws at every step.
"""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.gradient.pgd import PGD
from vmamba_jax.attacks.restarts import worst_of
from vmamba_jax.core import checks
from vmamba_jax.core.keys import fold_in, image_keys
from vmamba_jax.core.records import record

AVERAGES = ("logits", "probabilities")


def expected_logits(logits_fn, keys, samples, average="logits"):
    """A plain, deterministic model `images -> logits`: the randomised model's average over `samples` draws.

    Args:
        logits_fn: the randomised model (images, keys) -> (b, classes).
        keys: one key per image of the batch it will see; draw j uses each with j folded in, at every call the same.
        samples: draws >= 1, one after the other: the memory is that of one.
        average: "logits", or "probabilities": the logarithm of the mean softmax, whose cross entropy is that of the mean prediction.

    Returns a `jax.tree_util.Partial` with the keys (and the weights, where `logits_fn` is a Partial) as leaves.
    """
    checks.choice("average", average, AVERAGES)
    _need_batch(keys)
    fn = logits_fn if isinstance(logits_fn, jax.tree_util.Partial) else jax.tree_util.Partial(logits_fn)
    return jax.tree_util.Partial(_Average(checks.count("samples", samples), average), fn, keys)


@dataclasses.dataclass(frozen=True)
class _Average:
    """Static part of `expected_logits`: it compares by value, so equal averages share a compilation."""
    samples: int
    average: str

    def __call__(self, logits_fn, keys, images):
        def one(j):
            logits = logits_fn(images, fold_in(keys, j))
            return logits if self.average == "logits" else jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        drawn = lax.map(jax.checkpoint(one), jnp.arange(self.samples))  # (samples, b, classes)
        return drawn.mean(0) if self.average == "logits" else jax.nn.logsumexp(drawn, 0) - jnp.log(self.samples)


@record("eps", "step_size")
class EOTPGD(PGD):
    """PGD on a randomised model: every step follows the gradient of the loss averaged over new draws (torchattacks' EOTPGD).

    Called as other attacks, but with `logits_fn(images, keys)` and always with a random key. Averaged are the losses' gradients; to average
    the predictions instead, attack `expected_logits`.

    Args:
        samples: draws per step >= 1.
        restarts: judged by the mean loss over new draws, a hit being an image misclassified in more than half of them.
        eps, steps, step_size, norm, random_start, loss, targeted, l1_fraction, projection, bounds: as of `pgd`.
    """
    _: dataclasses.KW_ONLY
    samples: int = 2

    name = "eot_pgd"
    draws = "the model is randomised"

    def __post_init__(self):
        super().__post_init__()
        self._set(samples=checks.count("samples", self.samples))

    def run(self, logits_fn, images, labels, keys):
        threat, _, _, direction = self._tools(logits_fn, labels)
        size = jnp.asarray(self.step_size, images.dtype)

        def judge(x, keys):
            return losses.objective(lambda x: logits_fn(x, keys), labels, self.loss, self.targeted)(x)

        def gradient(x, keys):
            def add(j, total):
                return total + losses.ascent_gradient(lambda x: judge(x, fold_in(keys, j)))(x)
            return lax.fori_loop(0, self.samples, add, 0 * x) / self.samples

        def search(keys):
            start = threat.random_start(images, keys) if self.random_start else images
            step = lambda i, x: threat.project(images, x + size * direction(gradient(x, fold_in(keys, i)), x))
            return lax.fori_loop(0, self.steps, step, start)

        def evaluate(x):
            drawn = fold_in(keys, self.restarts)  # the searches use 0 to restarts - 1
            value, hit = lax.map(lambda j: judge(x, fold_in(drawn, j)), jnp.arange(self.samples))
            return value.mean(0), hit.mean(0) > 0.5
        return worst_of(search, evaluate, images, keys, self.restarts)


def _need_batch(keys):
    if not getattr(keys, "ndim", 0) or image_keys(keys, len(keys)) is not keys:
        raise ValueError(f"keys have shape {getattr(keys, 'shape', keys)}: expected one random key per image (attacks.per_image_keys)")


eot_pgd = EOTPGD
