"""Accuracy, accuracy under attack, and accuracy against the size of the perturbation."""
import jax.numpy as jnp
from jax.tree_util import Partial

from vmamba_jax import attacks
from vmamba_jax.core.closures import argument
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.results import Result, Rows
from vmamba_jax.core.statistics import summary
from vmamba_jax.evaluation import staged
from vmamba_jax.evaluation.loop import ADVERSARIAL, FINITE, Loop, classify, classify_clean, gather, on_mesh
from vmamba_jax.evaluation.sets import enter

IMAGES = ("correct", "robust", "broken_by", "margin")  # entries of a result with a value for each image


def accuracy(logits_fn, source, **loop) -> Result:
    """Accuracy over a set: {"accuracy", "correct" (n,) bool, "examples"}; "not_finite" as for `robust_accuracy`.

    Args:
        logits_fn, source, loop: as for `robust_accuracy`.
    """
    loop = Loop(**loop)
    return Result(gather(on_mesh(classify_clean, (argument(logits_fn),), loop), enter(logits_fn, source, loop), loop), images=IMAGES)


def robust_accuracy(logits_fn, source, attack, *, key, state=None, model_id=None, show=(), **options) -> Result:
    """Accuracy over a set, without and with an attack on every image.

    Args:
        logits_fn: [0, 1] images (b, H, W, C) -> logits (b, classes). If it is a pytree (`vmamba_jax.logits_fn`), its weights are an
            argument of the compiled program: other weights need no new compilation.
        source: a pair (images, labels), or a source of `vmamba_jax.data`; labels are integers (n,) in [0, classes).
        attack: untargeted `attack(logits_fn, images, labels, keys) -> adversarial`, or the name of one with its `options`, as for
            `attacks.create`: attack="autoattack", eps=8 / 255.
        key: a random key; image i of the set uses `fold_in(key, i)`, for any batch size and devices.
        state: file that an attack of several stages writes after every batch. If it exists, the run resumes from it with the same result.
            The file records the classifier by its code and the arrays it uses, so a new process can resume, also for a plain function.
        model_id: with `state`, a name of the classifier and its weights that replaces this record, for a classifier whose record would hold in
            one process only; a warning at the start says so.
        show: positions in the set of images to return as an attack of one stage changed them.
        options: the attack's, and those of the loop:
            batch_size: examples per batch over all devices, >= 1; 256 by default.
            mesh: one-dimensional, see `parallel.data_mesh`; None: all devices.
            progress: called after each batch as progress(examples done, examples in total, {"accuracy", "robust_accuracy"} so far), for
                example a `ProgressBar`: `with evaluation.ProgressBar("PGD") as bar: robust_accuracy(..., progress=bar)`. An
                attack of several stages adds "stage", its name, and "robust", the number of images still robust; its examples done are a
                fraction of all stages.

    Returns:
        {"accuracy", "robust_accuracy", "correct" (n,) bool, "robust" (n,) bool, "examples", "attack": its settings}. An image is robust if
        it is classified correctly both without and with the attack; an image with non-finite logits, without or with the attack, is misclassified, and
        "not_finite" is the number of such images if there are any. Each stage of an
        attack of several stages (AutoAttack) attacks only the images that are still robust, gathered into full batches; the result adds
        "stages" [{"name", "attacked", "broken", "seconds"}], "broken_by" (n,) int, the index of the stage that broke the image, -1 (still
        robust) or -2 (misclassified without attack), and "margin" (n,) float, the highest max_{j != y} z_j - z_y found. `show` adds
        "adversarial" (len(show), H, W, C). `summary` makes the result plain JSON, `per_image` lists its images.

    Raises:
        ValueError, TypeError: labels that are no classes of `logits_fn`, named by position, or a source of other classes.
        ValueError: `state` of another model, set, attack, key or version, a damaged `state`, or `state` for an attack of one stage; a position in
            `show` outside the set, or `show` for an attack of several stages; a stage that the number of classes does not allow, before any work.
    """
    loop = Loop.take(options)
    if isinstance(attack, str):
        attack = attacks.create(attack, **options)
    elif options:
        raise TypeError(f"robust_accuracy got {', '.join(map(repr, options))}: expected options only for an attack given by name")
    if getattr(attack, "targeted", False):
        raise ValueError(f"attack={attack!r}: expected an untargeted attack, since it gets the true labels")
    if hasattr(attack, "stages"):
        if len(show):
            raise ValueError(f"show={show!r} with attack={attack!r}: expected an attack of one stage")
        return Result(staged.run(logits_fn, source, attack, key, loop, state, model_id), images=IMAGES)
    if state is not None:
        raise ValueError(f"state={str(state)!r} with attack={attack!r}: expected an attack of several stages, such as autoattack")
    attacked = on_mesh(_classify_both, (argument(logits_fn), argument(attack)), loop, key)
    result = gather(attacked, enter(logits_fn, source, loop), loop, show)
    return Result(result | {"attack": getattr(attack, "settings", repr(attack))}, images=IMAGES)


def accuracy_curve(logits_fn, source, make_attack, radii, *, key, **loop) -> Rows:
    """Robust accuracy for several perturbation sizes: one row of `summary` with its "eps" per radius, all by one compiled program.

    Args:
        make_attack: radius -> attack, for example `lambda eps: attacks.pgd(eps, steps=20)`; also called with a traced radius.
        radii: radii >= 0 in pixel units; 0 gives the clean accuracy.
        logits_fn, source, key, loop: as for `robust_accuracy`; every radius uses the same random numbers, and progress counts all radii.
    """
    loop, radii = Loop(**loop), [float(radius) for radius in radii]
    source = enter(logits_fn, source, loop)
    made = [make_attack(radius) for radius in radii]  # raises for a wrong radius before any work
    fn, make, rows, program = argument(logits_fn), argument(make_attack), [], None
    for i, (radius, attack) in enumerate(zip(radii, made, strict=True)):
        attacked = on_mesh(_classify_both, (fn, Partial(_attack_at, make, jnp.asarray(radius))), loop, key, program)
        result, program = gather(attacked, source, loop.part(i, len(radii))), attacked.program
        rows.append({"eps": radius} | summary(result | {"attack": getattr(attack, "settings", repr(attack))}))
    return Rows(rows)


def _attack_at(make_attack, radius, logits_fn, images, labels, key):
    return make_attack(radius)(logits_fn, images, labels, key)


def _classify_both(tree, batch, key):
    logits_fn, attack = tree
    clean, attacked = classify(logits_fn, batch), classify(logits_fn, batch, attack, keys_at(key, batch["index"]))
    return {"correct": clean["correct"], "robust": clean["correct"] & attacked["correct"], FINITE: clean[FINITE] & attacked[FINITE],
            ADVERSARIAL: attacked[ADVERSARIAL]}
