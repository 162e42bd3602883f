"""Bit flips: faults of memory or logic in a model's weights or activations, in the floating-point numbers' own bits.

Each bit flips independently with a given probability, the bit error rate. A flip of a high exponent bit makes a number huge or not finite; an image
whose logits are not finite counts as misclassified.

Source: the fault model of Saber Latibari et al. 2026, arXiv 2602.16723, who inject bit flips into the weights and activations of Vim.
"""
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.core import checks
from vmamba_jax.core.results import Result
from vmamba_jax.core.statistics import mean_interval
from vmamba_jax.evaluation.accuracy import accuracy
from vmamba_jax.evaluation.disturbances.accuracy import compared
from vmamba_jax.evaluation.loop import Loop
from vmamba_jax.models.classifier import Classifier

PARTS = ("all", "sign", "exponent", "mantissa")
PLACES = ("weights", "activations")


def flip_bits(x, key, rate, bits="all"):
    """`x` with each of its bits flipped with probability `rate`.

    Args:
        x: floating array of 16, 32 or 64 bits.
        key: random key.
        rate: in [0, 1]; may be traced.
        bits: "all", or the part of the number that flips: "sign", "exponent" or "mantissa".
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x.dtype={x.dtype}: expected a floating-point type")
    checks.number("rate", rate, low=0, high=1)
    info = jnp.finfo(x.dtype)
    kind = {16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}[info.bits]
    parts = {"all": (0, info.bits), "mantissa": (0, info.nmant), "exponent": (info.nmant, info.bits - 1), "sign": (info.bits - 1, info.bits)}
    low, high = parts[checks.choice("bits", bits, PARTS)]

    def add(bit, mask):
        flips = jax.random.bernoulli(jax.random.fold_in(key, bit), rate, x.shape)
        return mask | (flips.astype(kind) << jnp.asarray(bit, kind))
    mask = lax.fori_loop(low, high, add, jnp.zeros(x.shape, kind))
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, kind) ^ mask, x.dtype)


def flip_weight_bits(variables, key, rate, bits="all", collections=("params",)):
    """Variables with bits of their floating-point leaves flipped, the same tree.

    Args:
        variables: {collection: tree}, of any Flax model.
        key, rate, bits: as for `flip_bits`; the leaf at a path folds the path's position into the key.
        collections: those whose bits flip; the others stay.

    Raises:
        ValueError: a collection that the variables lack.
    """
    for name in collections:
        checks.choice("collections", name, tuple(variables))
    flipped = {}
    for number, name in enumerate(sorted(variables)):
        if name not in collections:
            flipped[name] = variables[name]
            continue
        leaves, tree = jax.tree.flatten(variables[name])
        keys = jax.random.split(jax.random.fold_in(key, number), max(len(leaves), 1))
        flipped[name] = jax.tree.unflatten(tree, [flip_bits(x, k, rate, bits) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating) else x
                                                  for x, k in zip(leaves, keys, strict=False)])
    return flipped


def flip_activation_bits(logits_fn, key, rate, bits="all"):
    """`logits_fn` with bits of its layers' outputs flipped, at the same places for all images, as a stuck cell of a buffer is.

    A layer is a Flax module that has weights of its own; the outputs of functions between the layers stay.

    Args:
        logits_fn: images -> logits, which calls Flax modules; it must not have been traced before, as a function of `jax.jit` may have.
        key, rate, bits: as for `flip_bits`; the n-th layer called folds n into the key.

    Raises:
        ValueError: at the call, a logits_fn that calls no such module.
    """
    def faulty(images):
        calls = []

        def interceptor(call, args, kwargs, context):
            y = call(*args, **kwargs)
            own = context.module.variables.get("params", {}).values() if context.method_name == "__call__" else ()
            if all(isinstance(leaf, dict) for leaf in own) or not isinstance(y, jax.Array):
                return y
            calls.append(context.module.path)
            place = jax.random.fold_in(key, len(calls))
            mask = lax.bitcast_convert_type(flip_bits(jnp.zeros(y.shape[1:], y.dtype), place, rate, bits), _unsigned(y.dtype))
            return lax.bitcast_convert_type(lax.bitcast_convert_type(y, mask.dtype) ^ mask, y.dtype)

        with nn.intercept_methods(interceptor):
            logits = logits_fn(images)
        if not calls:
            raise ValueError("logits_fn without a call of a Flax module that has weights: expected a Flax model's, not yet compiled")
        return logits

    return faulty


def bit_flip_accuracy(classifier, variables, source, *, rate, key, where="weights", bits="all", draws=5, clean=None, **options) -> Result:
    """Accuracy over a set with flipped bits, over several draws of the faults.

    Args:
        classifier: `models.Classifier` of a Flax model.
        variables: its variables.
        source: as for `accuracy`.
        rate: bit error rate in [0, 1].
        key: random key; draw d uses `fold_in(key, d)`.
        where: "weights" or "activations".
        bits: as for `flip_bits`.
        draws: number of draws >= 1.
        clean: "correct" of `accuracy` on the same set; None: computed here.
        options: batch_size, mesh and progress, as for `accuracy`.

    Returns:
        "where", "rate", "bits", "examples", "accuracy" (without faults), "disturbed_accuracy" and "drop" (over the draws, as
        `core.statistics.mean_interval` has them), and "rows", one of `disturbances.accuracy.compared` per draw without its "correct"; plain JSON.
    """
    checks.choice("where", where, PLACES), checks.choice("bits", bits, PARTS), checks.number("rate", rate, low=0, high=1)
    draws, loop = checks.count("draws", draws), Loop.take(options)
    if options:
        raise TypeError(f"bit_flip_accuracy got {', '.join(map(repr, options))}: expected batch_size, mesh or progress")
    passes = draws + (clean is None)
    part = lambda i: vars(loop.part(i, passes, "accuracy" if i < passes - draws else "disturbed_accuracy"))
    if clean is None:
        clean = accuracy(jax.tree_util.Partial(classifier, variables), source, **part(0))["correct"]
    rows = []
    for d in range(draws):
        faulty = jax.tree_util.Partial(_Faulty(classifier, where, bits), variables, jax.random.fold_in(key, d), jnp.float32(rate))
        rows.append(compared(clean, accuracy(faulty, source, **part(passes - draws + d))["correct"]))
    return Result({"where": where, "rate": float(rate), "bits": bits, "examples": rows[0]["examples"], "accuracy": rows[0]["accuracy"],
                   **{name: mean_interval([row[name] for row in rows]) for name in ("disturbed_accuracy", "drop")},
                   "rows": [{name: value for name, value in row.items() if name != "correct"} for row in rows]})


@dataclasses.dataclass(frozen=True)
class _Faulty:
    """Static part of a classifier with faults: equal ones share a compilation."""
    classifier: Classifier
    where: str
    bits: str

    def __call__(self, variables, key, rate, images):
        if self.where == "weights":
            return self.classifier(flip_weight_bits(variables, key, rate, self.bits), images)
        return flip_activation_bits(lambda images: self.classifier(variables, images), key, rate, self.bits)(images)


def _unsigned(dtype):
    return {16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}[jnp.finfo(dtype).bits]
