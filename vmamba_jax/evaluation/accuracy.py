"""Accuracy, accuracy under attack, and accuracy against the size of the perturbation."""
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vmamba_jax import attacks, parallel
from vmamba_jax.core import checks
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.statistics import summary
from vmamba_jax.evaluation import staged
from vmamba_jax.evaluation.common import argument, mapped, right
from vmamba_jax.evaluation.loop import batches, reader

SHOWN = "adversarial"  # the images that an evaluation may give back


def accuracy(logits_fn, source, *, batch_size=256, mesh=None, progress=None):
    """Share of a set that is classified rightly: {"accuracy", "correct" (n,) bool, "examples"}. Arguments as of `robust_accuracy`."""
    return over_set(judge, (argument(logits_fn),), source, None, batch_size, mesh, progress)


def robust_accuracy(logits_fn, source, attack, *, key, batch_size=256, mesh=None, progress=None, state=None, show=(), **options):
    """Accuracy over a set, before and after an attack on every image.

    Args:
        logits_fn: [0, 1] images (b, H, W, C) -> logits (b, classes). Where it is a pytree (`vmamba_jax.logits_fn`), its weights are an
            argument of the compiled program: other weights need no new one.
        source: a pair (images, labels), or a source of `vmamba_jax.data`.
        attack: untargeted `attack(logits_fn, images, labels, keys) -> adversarial`, or the name of one with its `options`, as of
            `attacks.create`: attack="autoattack", eps=8 / 255.
        key: a random key; image i of the set draws from `fold_in(key, i)`, whatever the batches and devices.
        batch_size: images at a time over all devices, >= 1.
        mesh: as of `parallel.data_mesh`; None: all devices.
        progress: called after each batch as progress(images done, images in all, {"accuracy": ..., "robust_accuracy": ...} so far); an attack
            of several stages adds "stage" and "standing", and its images done are a share of all stages.
        state: file that an attack of several stages keeps after every batch; where it exists, the run goes on from there, to the same result.
        show: positions in the set of images to return as an attack of one stage changed them.

    Returns {"accuracy", "robust_accuracy", "correct" (n,) bool, "robust" (n,) bool, "examples", "attack": its settings}: an image is
    robust if it is classified rightly both before and after, and wrong if its logits are not finite. An attack of several stages (AutoAttack)
    is given, stage by stage, the images that still stand, gathered into full batches; it adds "stages" [{"name", "attacked", "broken",
    "seconds"}], "broken_by" (n,) int, the stage's place or -1 (standing) or -2 (wrong before), and "margin" (n,) float, the highest
    max_{j != y} z_j - z_y met. `show` adds "adversarial" (len(show), H, W, C). `summary` makes it plain JSON, `per_image` lists the images.

    Raises ValueError where `state` is of another model, set, attack or key, or damaged, or the attack has one stage; where `show` holds what is
    no position, or the attack has several.
    """
    if isinstance(attack, str):
        attack = attacks.create(attack, **options)
    elif options:
        raise TypeError(f"robust_accuracy got {', '.join(map(repr, options))}: options belong to an attack given by name")
    if getattr(attack, "targeted", False):
        raise ValueError(f"attack={attack!r}: expected an untargeted attack, as it is given the true labels")
    if hasattr(attack, "stages"):
        if len(show):
            raise ValueError(f"show={show!r} with attack={attack!r}: expected an attack of one stage")
        checks.count("batch_size", batch_size)
        mesh = parallel.data_mesh() if mesh is None else mesh
        return staged.run(argument(logits_fn), source, attack, key, batch_size, mesh, progress, state)
    if state is not None:
        raise ValueError(f"state={str(state)!r} with attack={attack!r}: expected an attack of several stages, such as autoattack")
    result = over_set(_attack_and_judge, (argument(logits_fn), argument(attack)), source, key, batch_size, mesh, progress, show=show)
    return result | {"attack": getattr(attack, "settings", repr(attack))}


def accuracy_curve(logits_fn, source, make_attack, radii, *, key, batch_size=256, mesh=None, progress=None):
    """Robust accuracy against perturbation size: one row (see `summary`) with its "eps" per radius, all by one compiled program.

    Args:
        make_attack: radius -> attack, as `lambda eps: attacks.pgd(eps, steps=20)`; called with a traced radius too.
        radii: radii >= 0 in pixel units; 0 gives the clean accuracy.
        progress: called as progress(images done, images in all, figures so far), over all radii together.

    The other arguments are those of `robust_accuracy`; each radius uses the same random numbers.
    """
    radii = [float(radius) for radius in radii]
    settings = [make_attack(radius) for radius in radii]  # wrong radii or settings fail here, before any work
    make, rows, total = argument(make_attack), [], reader(source)[1]
    for i, (radius, attack) in enumerate(zip(radii, settings, strict=True)):
        def report(done, n, figures, before=i * total):
            progress(before + done, total * len(radii), figures)
        result = robust_accuracy(logits_fn, source, Partial(_attack_at, make, jnp.asarray(radius)), key=key, batch_size=batch_size,
                                 mesh=mesh, progress=progress and report)
        rows.append({"eps": radius} | summary(result | {"attack": getattr(attack, "settings", repr(attack))}))
    return rows


def _attack_at(make_attack, radius, logits_fn, images, labels, key):
    return make_attack(radius)(logits_fn, images, labels, key)


def judge(tree, batch, key):
    del key
    logits_fn, = tree
    return {"index": batch["index"], "correct": right(logits_fn(batch["image"]), batch["label"])}


def _attack_and_judge(tree, batch, key):
    logits_fn, attack = tree
    images, labels, index = batch["image"], batch["label"], batch["index"]
    keys = keys_at(key, index)
    correct = right(logits_fn(images), labels)
    adversarial = attack(logits_fn, images, labels, keys)
    return {"index": index, "correct": correct, "robust": correct & right(logits_fn(adversarial), labels), SHOWN: adversarial}


def over_set(fn, tree, source, key, batch_size, mesh, progress, change=None, show=()):
    """Run fn over the set; the outputs besides "index" become one array (n, ...) per name, "correct" and "robust" also a mean under a longer one.

    change: batch -> batch on the mesh, before fn. show: positions whose output SHOWN is returned, the others' staying on the device.
    """
    checks.count("batch_size", batch_size)
    names = {"correct": "accuracy", "robust": "robust_accuracy"}
    mesh = parallel.data_mesh() if mesh is None else mesh
    tree = parallel.replicate(tree, mesh)
    n = reader(source)[1]
    seen, marks, places, shown = np.zeros(n, bool), {}, np.asarray(show, int).tolist(), {}
    if not all(0 <= i < n for i in places):
        raise ValueError(f"show={show!r}: expected positions in the set, 0 to {n - 1}")

    def collect(outputs):
        images = outputs.pop(SHOWN, None)
        outputs = parallel.to_host(outputs)
        index = outputs.pop("index")
        if not set(places).isdisjoint(index.tolist()):
            shown.update(zip(index.tolist(), parallel.to_host(images), strict=True))
        seen[index] = True
        for name, values in outputs.items():
            marks.setdefault(name, np.zeros((n, *values.shape[1:]), values.dtype))[index] = values
        if progress:
            progress(int(seen.sum()), n, {long: float(marks[name][seen].mean()) for name, long in names.items() if name in marks})

    pending = None  # one batch in flight while the next is read
    for batch in batches(source, batch_size, mesh):
        outputs = mapped(fn, mesh)(tree, change(batch) if change else batch, key)
        if pending:
            collect(pending)
        pending = outputs
    collect(pending)
    pictures = {SHOWN: np.stack([shown[i] for i in places])} if places else {}
    return {long: float(marks[name].mean()) for name, long in names.items() if name in marks} | marks | pictures | {"examples": n}
