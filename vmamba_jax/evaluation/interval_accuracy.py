"""Certified accuracy by interval bounds: images whose label no perturbation of an linf ball changes, as bounds of the logits show."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vmamba_jax.attacks import losses
from vmamba_jax.core import checks
from vmamba_jax.core.closures import argument
from vmamba_jax.core.results import Result
from vmamba_jax.evaluation.loop import ACCURACIES, FINITE, Loop, gather, on_mesh
from vmamba_jax.evaluation.programs import Held
from vmamba_jax.evaluation.sets import enter
from vmamba_jax.models import interval_bounds


def interval_accuracy(logits_fn, source, *, eps, **loop) -> Result:
    """Certified accuracy under linf perturbations, by sound interval bounds through the model (see `core.intervals`).

    Args:
        logits_fn: of `vmamba_jax.logits_fn`, or a function of JAX operations with a rule; row i of its output depends on image i alone.
        source, loop: as for `robust_accuracy`.
        eps: linf radius in pixel units, >= 0; the ball is clipped to [0, 1].

    Returns:
        {"accuracy", "certified_accuracy", "correct", "certified" (n,) bool, "margin" (n,) float32: upper bound of max_{j != y} z_j - z_y over the ball,
        "examples", "certificate": the settings}. An image is certified if its margin
        is below 0; NaN is not.

    Raises:
        NotImplementedError, TypeError: as `core.intervals.bounds`, before any work. Others as of `robust_accuracy`.
    """
    loop, eps = Loop(**loop), checks.number("eps", eps, low=0)
    source = enter(logits_fn, source, loop)
    result = gather(on_mesh(_bound, (argument(logits_fn), np.float32(eps)), loop), source, loop)
    accuracy = {"certified_accuracy": float(result["certified"].mean())}
    first = {name: result.pop(name) for name in ACCURACIES.values() if name in result}
    return Result(first | accuracy | result | {"certificate": {"name": "interval", "eps": eps, "norm": "linf"}}, images=("correct", "certified", "margin"))


def disagreements(certified, robust):
    """Positions of the images that are certified and yet broken by an attack; a sound certificate has none.

    Args:
        certified: (n,) bool, such as "certified" of `interval_accuracy`, or "correct" with a radius of `certify`.
        robust: (n,) bool of the same images under an attack within the certified radius, of `robust_accuracy`.
    """
    certified, robust = np.asarray(certified), np.asarray(robust)
    if certified.shape != robust.shape or certified.dtype != bool or robust.dtype != bool:
        raise ValueError(f"certified.shape={certified.shape}, robust.shape={robust.shape}: expected bool arrays of one shape")
    return np.flatnonzero(certified & ~robust)


def looseness(logits_fn, images, eps, key, *, samples=1000) -> Result:
    """How much wider the bounds of the logits are than what sampling finds.

    Args:
        logits_fn, eps: as for `interval_accuracy`.
        images: (b, H, W, C) in [0, 1].
        key: random key.
        samples: uniform points of each ball, and as many of its corners.

    Returns:
        {"width", "sampled" (b,): mean over the classes of the width of the bounds, and of the range of the sampled logits; "outside": number of sampled
        logits outside the bounds, 0 for a sound bound}.
    """
    images, samples = jnp.asarray(images, jnp.float32), checks.count("samples", samples)
    found = _looseness(argument(logits_fn), images, jnp.float32(checks.number("eps", eps, above=0)), key, samples)
    return Result({name: np.asarray(value) for name, value in found.items()}, images=("width", "sampled"))


@functools.partial(jax.jit, static_argnums=4)
def _looseness(logits_fn, images, eps, key, samples):
    low, high = interval_bounds.box(images, eps)
    bound = interval_bounds.logits(logits_fn, low, high)

    def draw(i, carry):
        least, most, outside = carry
        uniform = jax.random.uniform(jax.random.fold_in(key, i), images.shape)
        for place in (uniform, jnp.round(uniform)):
            z = logits_fn(jnp.clip(low + place * (high - low), low, high))
            outside += ((z < bound.low) | (z > bound.high)).sum(dtype=jnp.int32)
            least, most = jnp.minimum(least, z), jnp.maximum(most, z)
        return least, most, outside

    clean = logits_fn(images)
    least, most, outside = jax.lax.fori_loop(0, samples, draw, (clean, clean, jnp.int32(0)))
    return {"width": (bound.high - bound.low).mean(-1), "sampled": (most - least).mean(-1), "outside": outside}


def _alive(logits_fn):
    """The function itself, in place of the program's weak reference to it."""
    fn = logits_fn.func
    return Partial(fn.reference(), *logits_fn.args, **logits_fn.keywords) if isinstance(fn, Held) else logits_fn


def _bound(tree, batch, key):
    del key
    logits_fn, eps = tree
    images, labels = batch["image"], batch["label"]
    logits = logits_fn(images)
    low, high = interval_bounds.box(images, eps)
    bound = interval_bounds.margins(_alive(logits_fn), low, high, labels)
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), -jnp.inf, bound.high)
    margin = others.max(-1)
    return {"correct": losses.correct(logits, labels), FINITE: jnp.isfinite(logits).all(-1), "certified": margin < 0, "margin": margin.astype(jnp.float32)}
