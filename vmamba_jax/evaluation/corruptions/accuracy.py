"""Accuracy on corrupted images, corrupted on the device."""
import functools

import numpy as np

from vmamba_jax.core.closures import argument
from vmamba_jax.core.keys import fold_in, keys_at
from vmamba_jax.core.results import Result, Rows
from vmamba_jax.core.statistics import summary
from vmamba_jax.evaluation import corruptions
from vmamba_jax.evaluation.corruptions.apply import check
from vmamba_jax.evaluation.corruptions.catalog import FUNCTIONS
from vmamba_jax.evaluation.loop import Loop, classify_clean, on_mesh, over_set
from vmamba_jax.evaluation.sets import enter


def corruption_accuracy(logits_fn, source, *, key, corruptions=corruptions.CORRUPTIONS, severities=corruptions.SEVERITIES, table=None,
                        **loop) -> Rows:
    """Accuracy under each corruption at each severity. Every batch is read once, then corrupted in all ways and classified on its devices.

    Args:
        logits_fn: [0, 1] images (b, S, S, 3) -> logits (b, classes), as for `robust_accuracy`.
        source: a pair (images, labels), or a source of `vmamba_jax.data`, of clean square images.
        key: a random key. Image i of the set uses `fold_in(key, i)`, folded again by corruption and severity, for any batch size, devices
            and choice of corruptions.
        corruptions: names from `corruptions.CORRUPTIONS` and `corruptions.EXTRA`.
        severities: integers from 1 to 5.
        table: as for `corruptions.corrupt`.
        loop: as for `robust_accuracy`; progress reports {corruption: accuracy so far, averaged over severities}.

    Returns:
        One row per corruption and severity, in the given order: {"corruption", "severity", "accuracy", "accuracy_interval", "examples"},
        plain JSON. `corruption_errors` turns them into the argument of `corruptions.mean_corruption_error`. The released ImageNet-C was
        compressed once more by JPEG at quality 85, so its accuracies differ (`data.load("imagenet_c", ...)` with `accuracy` gives them).
    """
    loop, cases = Loop(**loop), [(name, severity) for name in corruptions for severity in severities]
    if not cases:
        raise ValueError(f"corruptions={corruptions!r}, severities={severities!r}: expected at least one of each")
    for case in cases:
        check(*case, table)
    corrupt = [on_mesh(corrupter(*case, table), (), loop, key) for case in cases]
    classify = on_mesh(classify_clean, (argument(logits_fn),), loop)

    def run(batch):
        return {"correct": [classify(batch | {"image": each(batch)})["correct"] for each in corrupt]}

    source = enter(logits_fn, source, loop)
    n = source.examples
    correct, seen = np.zeros((len(cases), n), bool), np.zeros(n, bool)
    for index, outputs in over_set(run, source, loop):
        correct[:, index], seen[index] = np.stack(outputs["correct"]), True
        if loop.progress:
            means = correct[:, seen].mean(1).reshape(-1, len(severities)).mean(1)
            loop.progress(int(seen.sum()), n, dict(zip(corruptions, means.tolist(), strict=True)))
    return Rows({"corruption": name, "severity": severity} | summary({"accuracy": float(row.mean()), "examples": n})
                for (name, severity), row in zip(cases, correct, strict=True))


def corruption_errors(rows) -> Result:
    """{corruption: errors by ascending severity} from the rows of `corruption_accuracy`."""
    errors = {}
    for row in sorted(rows, key=lambda row: row["severity"]):
        errors.setdefault(row["corruption"], []).append(1 - row["accuracy"])
    return Result(errors, errors=tuple(errors))


@functools.cache
def corrupter(name, severity, table=None):
    """A function (tree, batch, key) -> the batch's images corrupted, for `loop.on_mesh`; the same draws for every evaluation of a set."""
    number = list(FUNCTIONS).index(name) * len(corruptions.SEVERITIES) + severity

    def corrupted(tree, batch, key):
        del tree
        return corruptions.corrupt(name, severity, batch["image"], fold_in(keys_at(key, batch["index"]), number), table=table)
    return corrupted
