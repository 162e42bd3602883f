"""Accuracy under a disturbance, compared with the clean accuracy on the same images."""
import numpy as np

from vmamba_jax.core.closures import argument
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.results import Result
from vmamba_jax.core.statistics import paired_interval, wilson_interval
from vmamba_jax.evaluation import disturbances
from vmamba_jax.evaluation.accuracy import accuracy
from vmamba_jax.evaluation.loop import Loop, classify_clean, gather, on_mesh
from vmamba_jax.evaluation.sets import enter


def disturbed_accuracy(logits_fn, source, disturbance, *, key, clean=None, **options) -> Result:
    """Accuracy over a set, without and with a disturbance. The model is compiled once for all disturbances.

    Args:
        logits_fn, source: as for `robust_accuracy`.
        disturbance: from `disturbances`, or the name of one with its `options`: "random_drop", area=0.3; or any function
            (images, keys) -> images.
        key: a random key; image i of the set uses `fold_in(key, i)`, for any batch size and devices.
        clean: "correct" of `accuracy` on the same set; None: computed in a pass of its own.
        options: the disturbance's, and batch_size, mesh and progress as for `robust_accuracy`. progress reports {"accuracy"} or
            {"disturbed_accuracy"} so far and counts both passes.

    Returns:
        "disturbance" (its settings), "examples", "accuracy", "disturbed_accuracy", both with a 95 % "_interval", "drop" (the first minus
        the second) with its "drop_interval" for paired examples, "lost" and "gained" (images classified correctly only without, only with
        the disturbance), all plain JSON; and "correct" (n,) bool under the disturbance.
    """
    loop = Loop.take(options)
    if isinstance(disturbance, str):
        disturbance = disturbances.create(disturbance, **options)
    elif options:
        raise TypeError(f"disturbed_accuracy got {', '.join(map(repr, options))}: expected options only for a disturbance given by name")
    source = enter(logits_fn, source, loop)
    n = source.examples
    if clean is not None and np.shape(clean) != (n,):
        raise ValueError(f"clean has shape {np.shape(clean)}: expected ({n},), whether each image of the source is classified correctly")
    passes = 1 if clean is not None else 2
    if clean is None:
        clean = accuracy(logits_fn, source, **vars(loop.part(0, passes, "accuracy")))["correct"]
    model = argument(logits_fn) if getattr(disturbance, "needs_model", False) else None
    disturb = on_mesh(disturb_batch, (argument(disturbance), model), loop, key)
    classify = on_mesh(classify_clean, (argument(logits_fn),), loop)
    after = gather(lambda batch: classify(batch | {"image": disturb(batch)}), source, loop.part(passes - 1, passes, "disturbed_accuracy"))
    return Result({"disturbance": getattr(disturbance, "settings", repr(disturbance))} | compared(clean, after["correct"]), images=("correct",))


def compared(clean, disturbed):
    """The row of `disturbed_accuracy` from (n,) bool: whether each image is classified correctly without and with the disturbance."""
    clean, disturbed = np.asarray(clean, bool), np.asarray(disturbed, bool)
    n, lost, gained = len(clean), int((clean & ~disturbed).sum()), int((disturbed & ~clean).sum())
    return {"examples": n, "accuracy": float(clean.mean()), "accuracy_interval": wilson_interval(int(clean.sum()), n),
            "disturbed_accuracy": float(disturbed.mean()), "disturbed_accuracy_interval": wilson_interval(int(disturbed.sum()), n),
            "drop": (lost - gained) / n, "drop_interval": paired_interval(lost, gained, n), "lost": lost, "gained": gained,
            "correct": disturbed}


def disturb_batch(tree, batch, key):
    """The batch's images disturbed, for `loop.on_mesh`; tree: (disturbance, logits_fn or None)."""
    disturbance, logits_fn = tree
    model = () if logits_fn is None else (logits_fn, batch["label"])
    return disturbance(batch["image"], keys_at(key, batch["index"]), *model)
