"""Certified accuracy by randomized smoothing: counts of the predictions under Gaussian noise, for every image of a set."""
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.core import checks
from vmamba_jax.core.closures import argument
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.results import Result, Rows
from vmamba_jax.core.statistics import wilson_interval
from vmamba_jax.evaluation import smoothing, state_file
from vmamba_jax.evaluation.loop import Loop, on_mesh, over_set
from vmamba_jax.evaluation.sets import enter

ABSTAINS = -1  # the prediction for an image without a certificate


def certify(logits_fn, source, *, sigma, n0=100, n=10_000, alpha=0.001, key=None, state=None, model_id=None, **loop) -> Result:
    """Certified l2 radii of the smoothed classifier, which predicts the most frequent class under noise N(0, sigma^2).

    Each image's certificate is wrong with probability at most alpha over the noise. A noisy image is not clipped to [0, 1]; its prediction counts
    for no class if a logit is not finite.

    Args:
        logits_fn, source, model_id: as for `robust_accuracy`.
        sigma: standard deviation of the noise in pixel units, > 0.
        n0: noisy predictions that select the class, >= 1.
        n: further ones that bound its probability, >= 1; the largest radius is sigma * Phi^-1(alpha^(1 / n)).
        alpha: probability of a wrong certificate, in (0, 1).
        key: random key; None: `jax.random.key(0)`. Sample s of image i uses `fold_in(fold_in(key, i), s)` for any batch size and devices.
        state: file that is written after every batch; if it exists, the run resumes after the images that it holds, with the same result.
        loop: as for `robust_accuracy`; batch_size counts noisy images, 256 of them being one image of the set if n is large. Progress reports
            {"accuracy": share of the images so far whose most frequent class is their label}.

    Returns:
        {"accuracy": share of images certified with their label, "abstention": share without a certificate, "radius" (N,) float, 0 where it
        abstains, "predicted" (N,) int, -1 where it abstains, "selected" (N,) the class in question, "count" (N,) its predictions among n,
        "abstained", "correct" (N,) bool, "examples", "certificate": the settings}; "not_finite", the number of images with a prediction that
        counts for no class, if there are any. `certified_accuracy` gives the curve.

    Raises:
        ValueError, TypeError: as for `robust_accuracy`.

    Source: Cohen, Rosenfeld, Kolter 2019, algorithm CERTIFY, arXiv 1902.02918.
    """
    loop, key = Loop(**loop), jax.random.key(0) if key is None else key
    settings = {"name": "smoothing", "sigma": checks.number("sigma", sigma, above=0), "n0": checks.count("n0", n0), "n": checks.count("n", n),
                "alpha": checks.number("alpha", alpha, above=0, below=1)}
    about = state_file.identify(logits_fn, source, settings, key, model_id, state) if state else {}
    source = enter(logits_fn, source, loop)
    counts = _counts(logits_fn, source, settings, key, loop, state, about)
    selected, lost = counts["selection"].argmax(1), int((counts["lost"] > 0).sum())
    count = np.take_along_axis(counts["estimate"], selected[:, None], 1)[:, 0]
    radius, abstained = smoothing.certificate(count, n, sigma, alpha)
    predicted = np.where(abstained, ABSTAINS, selected)
    correct = predicted == counts["label"]
    return Result({"accuracy": float(correct.mean()), "abstention": float(abstained.mean())} | ({"not_finite": lost} if lost else {}) | {
        "radius": radius, "predicted": predicted, "selected": selected, "count": count, "abstained": abstained, "correct": correct,
        "examples": source.examples, "certificate": settings}, images=("radius", "predicted", "selected", "count", "abstained", "correct"))


def certified_accuracy(result, radii) -> Rows:
    """[{"radius", "certified_accuracy", "certified_accuracy_interval", "examples"}, ...]: share of the images that are certified correct at each radius.

    Args:
        result: of `certify`, or any {"radius" (N,), "correct" (N,)}; an image counts at r if it is correct and its radius is at least r.
        radii: numbers >= 0 in pixel units.
    """
    rows, n = [], len(result["radius"])
    for radius in radii:
        radius = checks.number("radii", float(radius), low=0)
        held = int((result["correct"] & (result["radius"] >= radius)).sum())
        rows.append({"radius": radius, "certified_accuracy": held / n, "certified_accuracy_interval": wilson_interval(held, n), "examples": n})
    return Rows(rows)


def _counts(logits_fn, source, settings, key, loop, state, about):
    """{"selection", "estimate" (N, classes), "lost", "label", "done" (N,)} over the set, from the file as far as it has them."""
    n, samples = source.examples, settings["n0"] + settings["n"]
    counts = {"selection": np.zeros((n, source.classes), np.int32), "estimate": np.zeros((n, source.classes), np.int32),
              "lost": np.zeros(n, np.int32), "label": np.zeros(n, np.int32), "done": np.zeros(n, bool)}
    if state and pathlib.Path(state).exists():
        counts = state_file.read(state, counts, about, _check_facts)[1]
    devices = loop.mesh.size
    rows = -(-loop.batch_size // devices)
    copies = min(rows, samples)
    part = dataclasses.replace(loop, batch_size=max(rows // copies, 1) * devices)
    settings = np.float32(settings["sigma"]), np.int32(settings["n0"]), np.int32(samples)
    run = on_mesh(_counter(copies), (argument(logits_fn), *settings), part, key)
    for index, outputs in over_set(run, source, part, np.flatnonzero(~counts["done"])):
        for name, values in outputs.items():
            counts[name][index] = values
        counts["done"][index] = True
        if state:
            state_file.write(state, {"identity": about}, counts)
        if loop.progress:
            done = counts["done"]
            loop.progress(int(done.sum()), n, {"accuracy": float((counts["estimate"].argmax(1) == counts["label"])[done].mean())})
    return counts


def _check_facts(facts):
    if facts.keys() != {"identity"}:
        raise ValueError("its facts have another form")


@functools.cache
def _counter(copies):
    """The program that counts the predictions of a batch under noise, `copies` noisy images of each image at once."""
    def count(tree, batch, key):
        logits_fn, sigma, n0, samples = tree
        images, keys = batch["image"], keys_at(key, batch["index"])
        b, shape, dtype = len(images), images.shape[1:], images.dtype

        def predict(number):
            keys_now = jax.vmap(keys_at, (0, None))(keys, number)
            noise = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, shape, dtype)))(keys_now)
            logits = logits_fn((images[:, None] + sigma.astype(dtype) * noise).reshape(-1, *shape))
            finite = jnp.isfinite(logits).all(-1)
            one_hot = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=jnp.int32) * finite[:, None]
            return one_hot.reshape(b, copies, -1), finite.reshape(b, copies)

        def add(i, totals):
            number = i * copies + jnp.arange(copies)
            votes, finite = predict(number)
            parts = number < n0, (number >= n0) & (number < samples)
            selection, estimate = ((votes * part[:, None]).sum(1) for part in parts)
            return jax.tree.map(jnp.add, totals, (selection, estimate, (~finite & (number < samples)).sum(1, dtype=jnp.int32)))

        shapes = jax.eval_shape(lambda: add(0, (0, 0, 0)))
        zeros = jax.tree.map(lambda x: jnp.zeros_like(images, x.dtype, shape=x.shape), shapes)
        selection, estimate, lost = lax.fori_loop(0, (samples + copies - 1) // copies, add, zeros)
        return {"selection": selection, "estimate": estimate, "lost": lost, "label": batch["label"]}
    return count
