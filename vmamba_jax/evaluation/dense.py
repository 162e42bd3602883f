"""Semantic segmentation over a set: mean IoU on clean, attacked, corrupted and disturbed images, and the worst case over attacks.

Images and random keys are those of classification: image i of a set is attacked, corrupted and disturbed as `robust_accuracy`,
`corruption_accuracy` and `disturbed_accuracy` would do it with the same key.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vmamba_jax.core import checks, closures
from vmamba_jax.core.closures import argument
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.labels import IGNORE
from vmamba_jax.core.results import Result
from vmamba_jax.evaluation import corruptions as all_corruptions
from vmamba_jax.evaluation.corruptions.accuracy import corrupter
from vmamba_jax.evaluation.corruptions.apply import check
from vmamba_jax.evaluation.disturbances.accuracy import disturb_batch
from vmamba_jax.evaluation.loop import ADVERSARIAL, Loop, gather, on_mesh
from vmamba_jax.evaluation.programs import held
from vmamba_jax.evaluation.segmentation import scores
from vmamba_jax.evaluation.sets import Entered, reader

RESAMPLES = 1000  # of the images, for an interval


def segmentation(logits_fn, source, *, attack=None, key=None, change=None, ignore=IGNORE, show=(), **loop) -> Result:
    """Scores over a set: those of `segmentation.mean_iou`, with an interval, and every image's own numbers.

    Args:
        logits_fn: [0, 1] images (b, H, W, C) -> logits (b, H, W, classes); a pytree's weights are an argument of the program.
        source: a pair (images (n, H, W, C), label maps (n, H, W)), or a source with maps of one size (`data.dense`).
        attack: `attack(logits_fn, images, label maps, keys) -> adversarial` such as `attacks.sea(...)`; None: the images as they are.
        key: a random key, for an attack; image i of the set uses `fold_in(key, i)`.
        change: a function batch -> images, such as `corrupted` and `disturbing` make; None: nothing. An attack acts after it.
        ignore: label of pixels that are not counted.
        show: positions in the set of images to return as they were evaluated.
        loop: batch_size, mesh, progress, see `robust_accuracy`.

    Returns:
        {"mIoU", "aAcc", "mAcc", "IoU" (classes,), "Acc" (classes,), "interval" of the mIoU, "examples", "confusion" (n, classes, classes + 1), "attack"
        if there is one, "adversarial" if show is not empty}. A pixel with non-finite logits counts as wrong, in the last column of "confusion".

    Raises:
        ValueError, TypeError: labels that are neither classes of `logits_fn` nor `ignore`, named by position.
    """
    loop = Loop(**loop)
    source = enter(logits_fn, source, loop)
    if attack is not None and getattr(attack, "targeted", False):
        raise ValueError(f"attack={attack!r}: expected an untargeted attack, since it gets the true labels")
    judge = on_mesh(_judge(source.classes, ignore), (argument(logits_fn), None if attack is None else argument(attack)), loop, key)
    found = gather(judge if change is None else lambda batch: judge(batch | {"image": change(batch)}), source, loop, show)
    wrong = np.flatnonzero(found.pop("wrong"))
    if wrong.size:
        raise ValueError(f"label map of image {wrong[0]}: expected classes from 0 to {source.classes - 1} or ignore={ignore}")
    more = {} if attack is None else {"attack": getattr(attack, "settings", repr(attack))}
    measured = of_confusion(found["confusion"])
    return Result(found | measured | more, **measured.joined)


def ensemble(logits_fn, source, attack, *, key, ignore=IGNORE, **loop) -> Result:
    """Scores under each part of an ensemble, and the worst case over them, from one program.

    Args:
        attack: with `attacks` and `each`, such as `attacks.sea(...)`.
        logits_fn, source, key, ignore, loop: as for `segmentation`.

    Returns:
        {"parts": [{"loss", "mIoU", "aAcc", "interval", ...} for each part], "worst": `worst_case` of them}.
    """
    loop = Loop(**loop)
    source = enter(logits_fn, source, loop)
    found = gather(on_mesh(_judge_each(source.classes, ignore), (argument(logits_fn), argument(attack)), loop, key), source, loop)
    confusions = np.moveaxis(found["confusion"], 1, 0)
    return Result({"parts": [{"loss": part.loss} | of_confusion(each) for part, each in zip(attack.attacks, confusions, strict=True)],
                   "worst": worst_case(confusions)})


def of_confusion(confusion) -> Result:
    """Scores, with the mIoU's interval, of every image's numbers of pixels (n, classes, classes or classes + 1)."""
    found = scores(confusion.sum(0, dtype=np.int64))
    return Result(found | {"interval": interval(confusion)}, **found.joined)


def enter(logits_fn, source, loop):
    """The set as `sets.Entered`, with the number of classes of `logits_fn`; see `segmentation`."""
    if isinstance(source, Entered):
        return source
    if isinstance(source, tuple):
        images, labels = (np.asarray(x) for x in source)
        if images.ndim != 4 or labels.shape != images.shape[:3] or not len(images):
            raise ValueError(f"source={images.shape}, {labels.shape} (shapes): expected (n, H, W, C) images and (n, H, W) label maps, n >= 1")
        read, n = (lambda index: (images[index], labels[index])), len(images)
    else:
        read, n = reader(source)
    first = unit_interval(read(np.arange(1))[0])
    rows = -(-min(loop.batch_size, n) // loop.mesh.size)
    fn = closures.argument(logits_fn, first.shape[1:])
    shape = jax.ShapeDtypeStruct((rows, *first.shape[1:]), first.dtype)
    logits = jax.eval_shape(lambda fn, x: fn(x), held(fn if isinstance(fn, Partial) else Partial(fn))[0], shape)
    if getattr(logits, "shape", ())[:-1] != (rows, *first.shape[1:3]):
        raise ValueError(f"logits_fn returned shape {getattr(logits, 'shape', type(logits).__name__)}: expected ({rows}, {first.shape[1]}, "
                         f"{first.shape[2]}, classes)")
    names = getattr(source, "classes", ())
    if names and len(names) != logits.shape[-1]:
        raise ValueError(f"source={source!r}: expected the {logits.shape[-1]} classes of logits_fn")
    return Entered(read, n, logits.shape[-1], jax.ShapeDtypeStruct(first.shape[1:], first.dtype))


@functools.cache
def _judge(classes, ignore):
    def judge(tree, batch, key):
        logits_fn, attack = tree
        images, labels = batch["image"], batch["label"]
        counted = labels != ignore
        wrong = (counted & ((labels < 0) | (labels >= classes))).any((1, 2))
        labels = jnp.where(counted & ~wrong[:, None, None], labels, ignore)
        if attack is not None:
            images = attack(logits_fn, images, labels, None if key is None else keys_at(key, batch["index"]))
        return {"confusion": _counts(logits_fn(images), labels, classes, ignore), "wrong": wrong, ADVERSARIAL: images}
    return judge


@functools.cache
def _judge_each(classes, ignore):
    def judge(tree, batch, key):
        logits_fn, attack = tree
        found, _ = attack.each(logits_fn, batch["image"], batch["label"], keys_at(key, batch["index"]))
        counts = jax.lax.map(lambda images: _counts(logits_fn(images), batch["label"], classes, ignore), found)
        return {"confusion": jnp.moveaxis(counts, 0, 1)}
    return judge


def _counts(logits, labels, classes, ignore):
    """Each image's numbers of pixels by label and prediction, (b, classes, classes + 1)."""
    prediction = jnp.where(jnp.isfinite(logits).all(-1), logits.argmax(-1), classes)
    cell = jnp.where(labels == ignore, classes * (classes + 1), labels * (classes + 1) + prediction)
    count = lambda cells: jnp.zeros(classes * (classes + 1) + 1, jnp.int32).at[cells.reshape(-1)].add(1)[:-1]
    return jax.vmap(count)(cell).reshape(-1, classes, classes + 1)


def corrupted(name, severity, key, *, table=None, **loop):
    """A `change` for `segmentation`: a corruption of `corruptions.corrupt`, with the draws of `corruption_accuracy`."""
    check(name, severity, table)
    return on_mesh(corrupter(name, severity, table), (), Loop(**loop), key)


def disturbing(disturbance, key, **loop):
    """A `change` for `segmentation`: a disturbance of `disturbances`, with the draws of `disturbed_accuracy`."""
    if getattr(disturbance, "needs_model", False):
        raise ValueError(f"disturbance={disturbance!r}: expected one without the model, whose classification loss has no map")
    return on_mesh(disturb_batch, (argument(disturbance), None), Loop(**loop), key)


def corruption_scores(logits_fn, source, *, key, corruptions=all_corruptions.CORRUPTIONS, severities=all_corruptions.SEVERITIES, table=None, clean=None,
                      metric="mIoU", **loop) -> Result:
    """Scores under each corruption at each severity, their mean (mPC) and the mean relative to the clean score (rPC).

    Args:
        logits_fn, source: as for `segmentation`, with square images.
        key, corruptions, severities, table: as for `corruption_accuracy`.
        clean: the clean score; None: computed.
        metric: the score that the means are of.

    Returns:
        {"rows": [{"corruption", "severity", metric, "interval"}, ...], "clean", "mPC", "rPC"}; rPC is nan if clean is 0.

    Source: Michaelis et al. 2019, arXiv 1907.07484, section 3.2.
    """
    source = enter(logits_fn, source, Loop(**loop))
    measure = lambda change: segmentation(logits_fn, source, change=change, **loop)
    return under_corruptions(measure, key, corruptions, severities, table=table, clean=clean, metric=metric, **loop)


def under_corruptions(measure, key, corruptions, severities, *, table=None, clean=None, metric="mIoU", **loop) -> Result:
    """As `corruption_scores`, by any measure: a function of a `change`, None for none, that returns the metric and its "interval"."""
    rows = []
    clean = measure(None)[metric] if clean is None else clean
    for name in corruptions:
        for severity in severities:
            found = measure(corrupted(name, severity, key, table=table, **loop))
            rows.append({"corruption": name, "severity": severity, metric: found[metric], "interval": found["interval"]})
    if not rows:
        raise ValueError(f"corruptions={corruptions!r}, severities={severities!r}: expected at least one of each")
    means = [np.mean([row[metric] for row in rows if row["corruption"] == name]) for name in dict.fromkeys(corruptions)]
    mean = float(np.mean(means))
    return Result({"rows": rows, "clean": clean, "mPC": mean, "rPC": mean / clean if clean else float("nan")})


def worst_case(confusions, rounds=1000, seed=0) -> Result:
    """The worst case over attacks: {"aAcc", "mIoU", "interval", "choice" (n,), "confusion"}.

    aAcc is the mean over images of each one's lowest pixel accuracy. For mIoU, which is no mean over images, a greedy search begins with the
    first attack for every image; in random order it takes for each image the attack of lowest mIoU of the whole set, until a round lowers it by
    less than 1e-6.

    Args:
        confusions: (attacks, n, classes, classes or classes + 1), "confusion" of `segmentation` under each attack.
        rounds: most rounds of the search.
        seed: of the orders.

    Source: Croce et al. 2024, section 3.4. The released search compares a round's images with the last image's result rather than each attack
    with the best so far; this one takes the lowest of all attacks.
    """
    confusions = np.asarray(confusions, np.int64)
    if confusions.ndim != 4 or not confusions.shape[0] or not confusions.shape[1]:
        raise ValueError(f"confusions.shape={confusions.shape}: expected (attacks, n, classes, classes or classes + 1)")
    images = np.arange(confusions.shape[1])
    right, union = _right_and_union(confusions)
    labelled = confusions.sum((2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = right.sum(2) / labelled
    choice, rng = np.zeros(len(images), int), np.random.default_rng(seed)
    total, last = (right[0].sum(0), union[0].sum(0)), np.inf
    for _ in range(checks.count("rounds", rounds, 0)):
        for i in rng.permutation(images):
            others = [x - old[choice[i], i] + old[:, i] for x, old in zip(total, (right, union), strict=True)]
            means = _mean_iou(*others)
            best = int(np.argmin(means))
            if means[best] < means[choice[i]]:
                choice[i], total = best, tuple(x[best] for x in others)
        now = float(_mean_iou(*total))
        if last - now < 1e-6:
            break
        last = now
    chosen = confusions[choice, images]
    seen = labelled[0] > 0
    lowest = float(accuracy[:, seen].min(0).mean()) if seen.any() else float("nan")
    return Result({"aAcc": lowest, "mIoU": scores(chosen.sum(0))["mIoU"], "interval": interval(chosen), "choice": choice, "confusion": chosen},
                  images=("choice",))


def _right_and_union(confusions):
    """Numbers of right pixels and of pixels of label or prediction, each (..., classes), of confusions (..., classes, classes or classes + 1)."""
    classes = confusions.shape[-2]
    right = np.diagonal(confusions[..., :classes], axis1=-2, axis2=-1)
    return right, confusions.sum(-1) + confusions.sum(-2)[..., :classes] - right


def _mean_iou(right, union):
    """Mean over the classes of the last axis that occur."""
    occurs = union > 0
    with np.errstate(invalid="ignore"):
        return np.where(occurs, right / np.maximum(union, 1), 0).sum(-1) / occurs.sum(-1)


def interval(confusion, resamples=RESAMPLES, seed=0):
    """95 % bootstrap interval [low, high] of the mIoU over images, percentiles of resampled sets; the classes of a resampled set are those it has."""
    confusion = np.asarray(confusion, np.int64)
    n = len(confusion)
    right, union = _right_and_union(confusion)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    found = _mean_iou(draws @ right, draws @ union)
    return np.nanpercentile(found, [2.5, 97.5]).tolist() if np.isfinite(found).any() else [float("nan")] * 2


def image_scores(confusion) -> Result:
    """{"mIoU" (n,), "aAcc" (n,)} of each image alone, nan where it has no label: for a list of the worst images."""
    confusion = np.asarray(confusion, np.int64)
    right, union = _right_and_union(confusion)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Result({"mIoU": _mean_iou(right, union), "aAcc": right.sum(1) / confusion.sum((1, 2))}, images=("mIoU", "aAcc"))


def class_weights(source, classes=None, ignore=IGNORE, batch=256):
    """Weights (classes,) of a set's classes for the balanced loss of `attacks.sea`: inverse numbers of pixels, with mean 1; 0 for an absent class.

    Args:
        source: as for `segmentation`.
        classes: number of classes; None: those of the source.
    """
    read, n = (lambda index: (None, np.asarray(source[1])[index]), len(source[1])) if isinstance(source, tuple) else reader(source)
    count = len(source.classes) if classes is None else checks.count("classes", classes)
    total = np.zeros(count, np.int64)
    for start in range(0, n, batch):
        labels = np.asarray(read(np.arange(start, min(start + batch, n)))[1])
        found = np.bincount(labels[labels != ignore], minlength=count)
        if len(found) > count:
            raise ValueError(f"labels={len(found) - 1} (the highest) of images {start} to {start + len(labels) - 1}: expected less than {count}, or {ignore}")
        total += found
    weights = np.where(total > 0, 1 / np.maximum(total, 1), 0.0)
    return tuple((weights / weights.mean()).tolist()) if total.any() else (1.0,) * count
