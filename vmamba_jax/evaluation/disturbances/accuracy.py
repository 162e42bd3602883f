"""Accuracy under a disturbance, beside the clean accuracy of the same images."""
import numpy as np

from vmamba_jax import parallel
from vmamba_jax.core import checks
from vmamba_jax.core.statistics import paired_interval, wilson_interval
from vmamba_jax.evaluation import disturbances
from vmamba_jax.evaluation.accuracy import accuracy, judge, over_set
from vmamba_jax.evaluation.common import argument, keys_of, mapped
from vmamba_jax.evaluation.loop import reader


def disturbed_accuracy(logits_fn, source, disturbance, *, key, batch_size=256, mesh=None, progress=None, clean=None, **options):
    """Accuracy over a set, as it is and disturbed. The model is compiled once for all disturbances.

    Args:
        logits_fn, source, batch_size, mesh: as of `robust_accuracy`.
        disturbance: of `disturbances`, or the name of one with its `options`, "random_drop", area=0.3; or any function (images, keys) -> images.
        key: a random key; image i of the set draws from `fold_in(key, i)`, whatever the batches and devices.
        progress: called after each batch as progress(images done, images in all, {"accuracy": ...} or {"disturbed_accuracy": ...}), over both
            passes together.
        clean: "correct" of `accuracy` on the same set, which saves the pass over the clean images.

    Returns a row: "disturbance" (its settings), "examples", "accuracy", "disturbed_accuracy", each with its 95 % "_interval", "drop" (the first less
    the second) with its "drop_interval" for paired examples, "lost" and "gained" (images that only are right before, after), all ready for JSON,
    and "correct", (n,) bool, whether each image of the set is right when disturbed.
    """
    if isinstance(disturbance, str):
        disturbance = disturbances.create(disturbance, **options)
    elif options:
        raise TypeError(f"disturbed_accuracy got {', '.join(map(repr, options))}: options belong to a disturbance given by name")
    checks.count("batch_size", batch_size)
    mesh, n = parallel.data_mesh() if mesh is None else mesh, reader(source)[1]
    if clean is not None and np.shape(clean) != (n,):
        raise ValueError(f"clean has shape {np.shape(clean)}: expected ({n},), whether each image of the source is classified rightly")
    passes = 1 if clean is not None else 2

    def report(before, name):
        return progress and (lambda done, _, figures: progress(before + done, passes * n, {name: figures["accuracy"]}))

    if clean is None:
        clean = accuracy(logits_fn, source, batch_size=batch_size, mesh=mesh, progress=report(0, "accuracy"))["correct"]
    tree = parallel.replicate((argument(disturbance), argument(logits_fn) if getattr(disturbance, "needs_model", False) else None), mesh)

    def change(batch):
        return batch | {"image": mapped(_disturb, mesh)(tree, batch, key)}
    after = over_set(judge, (argument(logits_fn),), source, None, batch_size, mesh, report((passes - 1) * n, "disturbed_accuracy"), change)
    return {"disturbance": getattr(disturbance, "settings", repr(disturbance))} | compared(clean, after["correct"])


def compared(clean, disturbed):
    """The row of two bool arrays (n,), whether each image is classified rightly before and after."""
    clean, disturbed = np.asarray(clean, bool), np.asarray(disturbed, bool)
    n, lost, gained = len(clean), int((clean & ~disturbed).sum()), int((disturbed & ~clean).sum())
    return {"examples": n, "accuracy": float(clean.mean()), "accuracy_interval": wilson_interval(int(clean.sum()), n),
            "disturbed_accuracy": float(disturbed.mean()), "disturbed_accuracy_interval": wilson_interval(int(disturbed.sum()), n),
            "drop": (lost - gained) / n, "drop_interval": paired_interval(lost, gained, n), "lost": lost, "gained": gained,
            "correct": disturbed}


def _disturb(tree, batch, key):
    disturbance, logits_fn = tree
    model = () if logits_fn is None else (logits_fn, batch["label"])
    return disturbance(batch["image"], keys_of(key, batch["index"]), *model)
