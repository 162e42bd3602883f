"""Accuracy on corrupted images, made on the device from clean ones."""
import functools

import numpy as np

from vmamba_jax import parallel
from vmamba_jax.core import checks
from vmamba_jax.core.keys import fold_in, keys_at
from vmamba_jax.core.statistics import summary
from vmamba_jax.evaluation import corruptions
from vmamba_jax.evaluation.common import argument, mapped, right
from vmamba_jax.evaluation.corruptions.apply import check
from vmamba_jax.evaluation.corruptions.catalog import FUNCTIONS
from vmamba_jax.evaluation.loop import batches, reader


def corruption_accuracy(logits_fn, source, *, key, corruptions=corruptions.CORRUPTIONS, severities=corruptions.SEVERITIES, table=None,
                        batch_size=256, mesh=None, progress=None):
    """Accuracy under each corruption at each severity: every batch is read once, corrupted in all ways in turn and judged, on its devices.

    Args:
        logits_fn: [0, 1] images (b, S, S, 3) -> logits (b, classes), as of `robust_accuracy`.
        source: a pair (images, labels), or a source of `vmamba_jax.data`, of clean square images.
        key: a random key. Image i of the set draws from `fold_in(key, i)`, folded once more by corruption and severity, whatever the
            batches, the devices and what else is asked for.
        corruptions: names of `corruptions.CORRUPTIONS` and `corruptions.EXTRA`.
        severities: from 1 to 5.
        table: as of `corruptions.corrupt`.
        batch_size, mesh: as of `robust_accuracy`.
        progress: called after each batch as progress(images done, images in all, {corruption: accuracy so far, over the severities}).

    Returns one row for each corruption and severity, in the order given, {"corruption", "severity", "accuracy", "accuracy_interval",
    "examples"}: plain JSON. `corruption_errors` makes of them what `corruptions.mean_corruption_error` takes. The released ImageNet-C went
    through JPEG once more, at quality 85: its figures differ (`data.load("imagenet_c", ...)` with `accuracy` gives them).
    """
    checks.count("batch_size", batch_size)
    cases = [(name, severity) for name in corruptions for severity in severities]
    if not cases:
        raise ValueError(f"corruptions={corruptions!r}, severities={severities!r}: expected at least one of each")
    for case in cases:
        check(*case, table)
    mesh = parallel.data_mesh() if mesh is None else mesh
    judge, tree, n = mapped(_judge, mesh), parallel.replicate((argument(logits_fn),), mesh), reader(source)[1]
    correct, seen = np.zeros((len(cases), n), bool), np.zeros(n, bool)
    for batch in batches(source, batch_size, mesh):
        marks = [judge(tree, batch | {"image": _corrupter(*case, table, mesh)((), batch, key)}, key) for case in cases]
        marks, index = parallel.to_host((marks, batch["index"]))
        correct[:, index], seen[index] = np.stack(marks), True
        if progress:
            shares = correct[:, seen].mean(1).reshape(-1, len(severities)).mean(1)
            progress(int(seen.sum()), n, dict(zip(corruptions, shares.tolist(), strict=True)))
    return [{"corruption": name, "severity": severity} | summary({"accuracy": float(mark.mean()), "examples": n})
            for (name, severity), mark in zip(cases, correct, strict=True)]


def corruption_errors(rows):
    """{corruption: errors by severity, in rising order} of the rows of `corruption_accuracy`."""
    errors = {}
    for row in sorted(rows, key=lambda row: row["severity"]):
        errors.setdefault(row["corruption"], []).append(1 - row["accuracy"])
    return errors


@functools.lru_cache(maxsize=256)
def _corrupter(name, severity, table, mesh):
    place = list(FUNCTIONS).index(name) * len(corruptions.SEVERITIES) + severity

    def corrupted(tree, batch, key):
        del tree
        return corruptions.corrupt(name, severity, batch["image"], fold_in(keys_at(key, batch["index"]), place), table=table)
    return parallel.map_batch(corrupted, mesh, mesh.axis_names[0])


def _judge(tree, batch, key):
    del key
    logits_fn, = tree
    return right(logits_fn(batch["image"]), batch["label"])
