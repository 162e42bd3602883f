"""Accuracy of every model on every model's adversarial images."""
import numpy as np

from vmamba_jax import parallel
from vmamba_jax.core import checks
from vmamba_jax.core.keys import keys_at
from vmamba_jax.evaluation.common import argument, mapped, right
from vmamba_jax.evaluation.loop import batches, reader


def transfer_matrix(models, source, attack, *, key, targets=None, batch_size=256, mesh=None, progress=None):
    """Attack a set through each model in turn, and show the result to all: each set of adversarial images is made once.

    Args:
        models: {name: logits_fn}, each from [0, 1] images (b, H, W, C) of the source's size to logits over the same classes.
        source: a pair (images, labels), or a source of `vmamba_jax.data`.
        attack: `attack(logits_fn, images, labels, keys) -> adversarial`, the same for all models.
        key: a random key; image i of the set draws from `fold_in(key, i)`, whatever the model, the batches and devices.
        targets: (n,) integers, the class that each image is to become: for a targeted attack, and for no other.
        batch_size, mesh: as of `robust_accuracy`.
        progress: called after each batch as progress(images done, images in all, {name: clean accuracy so far}).

    Returns a dict, of which `summary` makes plain JSON; the first model named is the one attacked, the second the one that judges:
        "models": names in order. "examples": n. "attack": its settings. "clean": {name: accuracy}.
        "transfer": {model: {model: share of images classified rightly both before and after}}, on the diagonal the robust accuracy.
        "fooled": {model: {model: share, among images classified rightly before, of those that no longer are}}, None where there were none.
        "hit", of a targeted attack: {model: {model: share, among images of another class than their target, classified as it}}.
        "correct" (m, n), "robust" (m, m, n), "at_target" (m, m, n, targeted only): the booleans behind them.
    """
    names, n = list(models), reader(source)[1]
    if not names:
        raise ValueError("models={}: expected at least one {name: logits_fn}")
    checks.count("batch_size", batch_size)
    targets = _check_targets(attack, targets, n)
    mesh = parallel.data_mesh() if mesh is None else mesh
    fns = [parallel.replicate(argument(fn), mesh) for fn in models.values()]
    attack_tree, aims = parallel.replicate((argument(attack), targets), mesh)
    craft, judge = mapped(_craft, mesh), mapped(_judge, mesh)

    correct, robust, at_target = np.zeros((len(fns), n), bool), *np.zeros((2, len(fns), len(fns), n), bool)
    seen, aimed = np.zeros((2, n), bool)
    for batch in batches(source, batch_size, mesh):
        def verdicts(images, batch=batch):
            return [judge((fn, aims), batch | {"image": images}, key) for fn in fns]
        clean = verdicts(batch["image"])
        attacked = [verdicts(craft((fn, attack_tree, aims), batch, key)) for fn in fns]
        clean, attacked, index = parallel.to_host((clean, attacked, batch["index"]))
        seen[index], aimed[index] = True, clean[0]["aimed"]
        for i, (before, row) in enumerate(zip(clean, attacked, strict=True)):
            correct[i, index] = before["right"]
            for j, after in enumerate(row):
                robust[i, j, index] = clean[j]["right"] & after["right"]
                at_target[i, j, index] = after["at_target"]
        if progress:
            progress(int(seen.sum()), n, dict(zip(names, correct[:, seen].mean(1).tolist(), strict=True)))

    def table(share):
        return {a: {b: share(i, j) for j, b in enumerate(names)} for i, a in enumerate(names)}
    result = {"models": names, "examples": n, "attack": getattr(attack, "settings", repr(attack)),
              "clean": dict(zip(names, correct.mean(1).tolist(), strict=True)), "correct": correct, "robust": robust,
              "transfer": table(lambda i, j: float(robust[i, j].mean())),
              "fooled": table(lambda i, j: _mean(~robust[i, j][correct[j]]))}
    if targets is not None:
        result |= {"at_target": at_target, "hit": table(lambda i, j: _mean(at_target[i, j][aimed]))}
    return result


def _craft(tree, batch, key):
    logits_fn, attack, targets = tree
    labels = batch["label"] if targets is None else targets[batch["index"]]
    return attack(logits_fn, batch["image"], labels, keys_at(key, batch["index"]))


def _judge(tree, batch, key):
    del key
    logits_fn, targets = tree
    logits, labels = logits_fn(batch["image"]), batch["label"]
    aims = labels if targets is None else targets[batch["index"]]
    return {"right": right(logits, labels), "at_target": right(logits, aims), "aimed": aims != labels}


def _mean(marks):
    return float(marks.mean()) if marks.size else None


def _check_targets(attack, targets, n):
    if getattr(attack, "targeted", targets is not None) != (targets is not None):
        raise ValueError(f"targets={'None' if targets is None else 'given'} with attack={attack!r}: expected targets for a targeted attack only")
    if targets is None:
        return None
    targets = np.asarray(targets)
    if targets.shape != (n,) or targets.dtype.kind not in "iu":
        raise ValueError(f"targets are {targets.dtype}{targets.shape}: expected integers of shape ({n},), a class for each image")
    return targets.astype(np.int32)
