"""Accuracy of every model on the adversarial images of every model."""
import numpy as np

from vmamba_jax.attacks.losses import correct
from vmamba_jax.core import checks
from vmamba_jax.core.closures import argument
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.results import Result
from vmamba_jax.evaluation.loop import Loop, on_mesh, over_set
from vmamba_jax.evaluation.sets import enter


def transfer_matrix(models, source, attack, *, key, targets=None, **loop) -> Result:
    """Attack a set through each model in turn and classify the results with all; each set of adversarial images is computed once.

    Args:
        models: {name: logits_fn}, each from [0, 1] images (b, H, W, C) of the source's size to logits over the same classes.
        source: a pair (images, labels), or a source of `vmamba_jax.data`.
        attack: `attack(logits_fn, images, labels, keys) -> adversarial`, the same for all models.
        key: a random key; image i of the set uses `fold_in(key, i)`, for any model, batch size and devices.
        targets: (n,) integers, the target class of each image, for a targeted attack; None: the attack is untargeted.
        loop: as for `robust_accuracy`; progress reports {name: clean accuracy so far}.

    Returns:
        A dict that `summary` makes plain JSON. In each table the first model is the one attacked, the second the one that classifies.
        "models": names in order. "examples": n. "attack": its settings. "clean": {name: accuracy}.
        "transfer": {model: {model: fraction of images classified correctly both without and with the attack}}; on the diagonal the robust
            accuracy.
        "fooled": {model: {model: of the images classified correctly without the attack, the fraction misclassified with it}}; None if there
            are none.
        "hit", for a targeted attack: {model: {model: of the images whose class is not their target, the fraction classified as the
            target}}.
        "correct" (m, n), "robust" (m, m, n), "at_target" (m, m, n, targeted only): the booleans behind them.
    """
    names, loop = list(models), Loop(**loop)
    if not names:
        raise ValueError("models={}: expected at least one {name: logits_fn}")
    source = _enter(models, source, loop)
    n, targets = source.examples, _check_targets(attack, targets, source)
    attacks = [on_mesh(_attack, (argument(fn), argument(attack), targets), loop, key) for fn in models.values()]
    classifiers = [on_mesh(_classify, (argument(fn), targets), loop) for fn in models.values()]

    def run(batch):
        sets = [batch["image"], *(attack(batch) for attack in attacks)]
        return {"found": [[classify(batch | {"image": images}) for classify in classifiers] for images in sets]}

    m = len(names)
    right, robust, at_target = np.zeros((m, n), bool), *np.zeros((2, m, m, n), bool)
    seen, aimed = np.zeros((2, n), bool)
    for index, outputs in over_set(run, source, loop):
        clean, *attacked = outputs["found"]
        seen[index], aimed[index] = True, clean[0]["aimed"]
        for i, row in enumerate(attacked):
            right[i, index] = clean[i]["correct"]
            for j, after in enumerate(row):
                robust[i, j, index] = clean[j]["correct"] & after["correct"]
                at_target[i, j, index] = after["at_target"]
        if loop.progress:
            loop.progress(int(seen.sum()), n, dict(zip(names, right[:, seen].mean(1).tolist(), strict=True)))

    def table(fraction):
        return {a: {b: fraction(i, j) for j, b in enumerate(names)} for i, a in enumerate(names)}
    result = {"models": names, "examples": n, "attack": getattr(attack, "settings", repr(attack)),
              "clean": dict(zip(names, right.mean(1).tolist(), strict=True)), "correct": right, "robust": robust,
              "transfer": table(lambda i, j: float(robust[i, j].mean())),
              "fooled": table(lambda i, j: _mean(~robust[i, j][right[j]]))}
    if targets is not None:
        result |= {"at_target": at_target, "hit": table(lambda i, j: _mean(at_target[i, j][aimed]))}
    return Result(result)


def _attack(tree, batch, key):
    logits_fn, attack, targets = tree
    labels = batch["label"] if targets is None else targets[batch["index"]]
    return attack(logits_fn, batch["image"], labels, keys_at(key, batch["index"]))


def _classify(tree, batch, key):
    del key
    logits_fn, targets = tree
    logits, labels = logits_fn(batch["image"]), batch["label"]
    aims = labels if targets is None else targets[batch["index"]]
    return {"correct": correct(logits, labels), "at_target": correct(logits, aims), "aimed": aims != labels}


def _mean(marks):
    return float(marks.mean()) if marks.size else None


def _enter(models, source, loop):
    entered = {name: enter(fn, source, loop) for name, fn in models.items()}
    counts = {name: each.classes for name, each in entered.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"models={counts} (numbers of classes): expected models of the same classes")
    return next(iter(entered.values()))


def _check_targets(attack, targets, source):
    if getattr(attack, "targeted", targets is not None) != (targets is not None):
        found = "None" if targets is None else "given"
        raise ValueError(f"targets={found} with attack={attack!r}: expected targets for a targeted attack, None for others")
    if targets is None:
        return None
    targets = np.asarray(targets)
    checks.classes(targets, source.examples, source.classes, name="targets")
    return targets.astype(np.int32)
