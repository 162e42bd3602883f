"""Losses of semantic segmentation that attacks maximize: `loss(logits, labels) -> (batch, H, W)`, 0 where the label is `ignore`.

Every loss takes logits (batch, H, W, classes) and integer labels (batch, H, W), and weighs or transforms the cross-entropy of each pixel.
Weights carry no gradient.
"""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.labels import IGNORE


def cross_entropy(logits, labels, ignore=IGNORE):
    """-log softmax(z)_y of each pixel."""
    return _mapped(logits, labels, ignore, lambda nll: nll)


def segpgd(logits, labels, step, steps, targeted=False, ignore=IGNORE):
    """Cross-entropy with the weight 1 - t / (2 T) at right pixels and t / (2 T) at wrong ones, or the reverse if targeted.

    Args:
        step: t, the index of the attack's step from 0 to T - 1; may be traced.
        steps: T, the number of steps.
        targeted: labels are targets.

    Source: Gu et al. 2022, SegPGD, equation 4.
    """
    share = step / (2 * checks.count("steps", steps))
    right = _right(logits, labels)
    return _mapped(logits, labels, ignore, lambda nll: jnp.where(right != targeted, 1 - share, share) * nll)


def cospgd(logits, labels, targeted=False, ignore=IGNORE):
    """Cross-entropy weighted by the cosine of the probabilities and the one-hot label, or by 1 - the cosine if targeted.

    Source: Agnihotri et al. 2024, CosPGD, equations 5 and 6.
    """
    p = jax.nn.softmax(logits, -1)
    cosine = jax.lax.stop_gradient(_at(p, _inside(labels, ignore)) / jnp.sqrt((p * p).sum(-1)))
    return _mapped(logits, labels, ignore, lambda nll: (1 - cosine if targeted else cosine) * nll)


def mask_ce_avg(logits, labels, ignore=IGNORE):
    """Cross-entropy at the pixels that are right (Croce et al. 2024, SEA, section 3.2)."""
    right = _right(logits, labels)
    return _mapped(logits, labels, ignore, lambda nll: right * nll)


def mask_ce_bal(logits, labels, weights, ignore=IGNORE):
    """`mask_ce_avg` times the weight of the label's class, (classes,) (Croce et al. 2024, SEA, section 3.2)."""
    weights = jnp.asarray(weights, logits.dtype)
    if weights.shape != logits.shape[-1:]:
        raise ValueError(f"weights.shape={weights.shape}: expected ({logits.shape[-1]},), one weight per class")
    return weights[_inside(labels, ignore)] * mask_ce_avg(logits, labels, ignore)


def js_avg(logits, labels, ignore=IGNORE):
    """Jensen-Shannon divergence of the probabilities and the one-hot label, between 0 and log 2.

    With p the label's probability it is log 2 + (p log p - (1 + p) log(1 + p)) / 2: off the label the mean is half of the probability. This
    form is finite where probabilities underflow.

    Source: Croce et al. 2024, SEA, section 3.2.
    """
    def divergence(nll):
        p = jnp.exp(-nll)
        return jnp.log(2.0) - (p * nll + (1 + p) * jnp.log1p(p)) / 2
    return _mapped(logits, labels, ignore, divergence)


def tsallis(logits, labels, q, ignore=IGNORE):
    """Tsallis loss (1 - p^(1 - q)) / (1 - q) of the label's probability p; q = 1 is the cross-entropy, q below 0 favors confident pixels.

    Args:
        q: real number; may be traced.

    Source: TsallisPGD (arXiv 2605.03405), equation 3.
    """
    near = jnp.abs(1 - q) < 1e-6
    power = jnp.where(near, 1.0, 1 - jnp.asarray(q, jnp.promote_types(logits.dtype, jnp.float32)))
    return _mapped(logits, labels, ignore, lambda nll: jnp.where(near, nll, -jnp.expm1(-power * nll) / power))


def tsallis_schedule(logits, labels, progress, first=-2.0, last=1.0, ignore=IGNORE):
    """`tsallis` whose q moves linearly from `first` to `last`.

    Args:
        progress: share of a phase's steps that are done, in [0, 1]; may be traced.

    Source: TsallisPGD (arXiv 2605.03405), section 4.
    """
    return tsallis(logits, labels, first + (last - first) * progress, ignore)


def right_pixels(logits, labels, ignore=IGNORE):
    """The share of an image's pixels that are right, (batch,); ignored pixels count as right, as do all of an image without others."""
    return (_right(logits, labels) | (labels == ignore)).mean((1, 2), dtype=jnp.promote_types(logits.dtype, jnp.float32))


LOSSES = {"cross_entropy": cross_entropy, "mask_ce_avg": mask_ce_avg, "mask_ce_bal": mask_ce_bal, "js_avg": js_avg, "cospgd": cospgd,
          "tsallis_schedule": tsallis_schedule}


def _mapped(logits, labels, ignore, of):
    """`of` the cross-entropy of each pixel, 0 where the label is ignored."""
    check(logits, labels, ignore)
    nll = -_at(jax.nn.log_softmax(logits, -1), _inside(labels, ignore))     # exact where the label is nearly certain, unlike logsumexp - logit
    return jnp.where(labels == ignore, 0, of(nll))


def check(logits, labels, ignore=IGNORE):
    """Raise unless logits are (batch, H, W, classes) and labels (batch, H, W) of their size, each a class or `ignore`."""
    if logits.ndim != 4 or labels.shape != logits.shape[:3]:
        raise ValueError(f"labels.shape={labels.shape} with logits of shape {logits.shape}: expected logits (batch, H, W, classes) and labels (batch, H, W)")
    if checks.known(labels):
        values = np.asarray(labels).reshape(-1)
        counted = values != ignore
        checks.classes(values[counted], int(counted.sum()), logits.shape[-1], name="labels", positions=np.flatnonzero(counted))
    elif not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels.dtype={labels.dtype}: expected an integer type, one class per pixel")


def _inside(labels, ignore):
    """Labels with 0 in the place of `ignore`."""
    return jnp.where(labels == ignore, 0, labels)


def _right(logits, labels):
    return logits.argmax(-1) == labels


def _at(x, labels):
    return jnp.take_along_axis(x, labels[..., None], -1)[..., 0]
