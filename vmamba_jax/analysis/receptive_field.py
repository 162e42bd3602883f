"""Effective receptive field: how much each pixel changes the center of a model's last map, and the square that holds a share of it.

Source: Luo et al., arXiv 1701.04128; settings of VMamba (Liu et al., arXiv 2401.10166), whose program follows RepLKNet's (arXiv 2203.06717).
"""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vmamba_jax.core import checks
from vmamba_jax.core.results import Result, Rows
from vmamba_jax.evaluation.loop import Loop, on_mesh, over_set
from vmamba_jax.evaluation.sets import examples
from vmamba_jax.models.classifier import as_classifier
from vmamba_jax.models.layers import probes

SHARES = (0.2, 0.3, 0.5, 0.99)
POWER = 0.2


def receptive_field(model, variables, source, *, mean=None, std=None, **loop) -> Result:
    """Effective receptive field of the last map's central position, the mean over images.

    The score is the sum over channels of relu(map[h // 2, w // 2]), of the map before the final norm and the head; a pixel's value is the sum over
    channels of relu(d score / d pixel), with respect to the normalized image, as in the released program.

    Args:
        model: any model of the catalog with a map, in any form that `logits_fn` accepts, or another Linen module that calls
            `self.sow("maps", "last", x)` with x of shape (b, h, w, C). `model.clone(remat=True)` needs less memory for large images.
        variables: the model's.
        source: as for `robust_accuracy`; the labels have no effect. The released setting is 50 images of 1024 x 1024 pixels.
        mean, std: as for `logits_fn`.
        loop: batch_size, mesh, progress, as for `robust_accuracy`.

    Returns:
        {"map": (H, W) float64; "examples": number of images; "skipped": of these, the images whose map is not finite}.

    Raises:
        ValueError: a model that sows no map, or no image with a finite map.
    """
    loop, classifier = Loop(**loop), as_classifier(model, mean, std)
    run, n = on_mesh(_fields, (Partial(_field(classifier), variables),), loop), examples(source)
    total, seen, skipped = 0.0, set(), 0
    for index, outputs in over_set(run, source, loop):
        for i, found in zip(index.tolist(), outputs["map"], strict=True):
            if i in seen:  # padding repeats the last image
                continue
            seen.add(i)
            if np.isfinite(found).all():
                total = total + found.astype(np.float64)
            else:
                skipped += 1
        if loop.progress:
            loop.progress(len(seen), n, {})
    if skipped == n:
        raise ValueError(f"source of {n} images: expected at least one whose map is finite")
    return Result({"map": total / (n - skipped), "examples": n, "skipped": skipped})


def contribution(field, shares=SHARES) -> Rows:
    """The smallest square around the center pixel (H // 2, W // 2) that holds each share of a field's sum.

    Args:
        field: (H, W), of `receptive_field`, not negative.
        shares: in (0, 1].

    Returns:
        [{"share", "side": odd, in pixels; "area": pixels of the square that are in the image, over all}, ...].

    Raises:
        ValueError: a field whose sum is not positive.
    """
    field = np.asarray(field, np.float64)
    if field.ndim != 2 or not (field >= 0).all() or not 0 < field.sum() < np.inf:
        raise ValueError(f"field.shape={field.shape}, sum {field.sum():.4g}: expected (H, W), not negative, with a positive sum")
    rows, columns = (np.abs(np.arange(side) - side // 2) for side in field.shape)
    distance = np.maximum(rows[:, None], columns).ravel()
    held = np.cumsum(np.bincount(distance, field.ravel()))
    pixels = np.cumsum(np.bincount(distance))
    found = []
    for share in shares:
        checks.number("share", share, above=0, high=1)
        radius = min(int(np.searchsorted(held, share * held[-1] * (1 - 1e-12))), len(held) - 1)
        found.append({"share": float(share), "side": 2 * radius + 1, "area": float(pixels[radius] / field.size)})
    return Rows(found)


def displayed(field, power=POWER):
    """A field (H, W) as it is drawn: to the power, divided by its maximum. A field of zeros stays 0."""
    raised = np.asarray(field, np.float64) ** power
    return raised / raised.max() if raised.max() > 0 else raised


@functools.lru_cache(maxsize=64)
def _field(classifier):
    """(variables, images) -> maps (b, H, W), one function per classifier."""
    plain = dataclasses.replace(classifier, mean=(0.0,), std=(1.0,), columns=None)

    def score(x, variables):
        found = plain(variables, x, mutable=[probes.MAPS])[1].get(probes.MAPS, {})
        if "last" not in found:
            raise ValueError(f'model {type(classifier.model).__name__}: expected one that calls self.sow("maps", "last", x) with its last map (b, h, w, C)')
        last, = found["last"]
        return jax.nn.relu(last[:, last.shape[1] // 2, last.shape[2] // 2]).sum()

    def run(variables, images):
        gradient = jax.grad(score)(classifier.normalize(images), variables)
        return jax.nn.relu(gradient).sum(-1).astype(jnp.float32)
    return run


def _fields(tree, batch, key):
    del key
    run, = tree
    return {"map": run(batch["image"])}
