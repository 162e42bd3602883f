"""The loop over a set that every evaluation uses: equal sharded batches, one of them in flight, results gathered by position in the set."""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vmamba_jax import parallel
from vmamba_jax.attacks import losses
from vmamba_jax.core import checks, closures
from vmamba_jax.core.images import unit_interval
from vmamba_jax.evaluation.programs import Programs, held
from vmamba_jax.evaluation.sets import Entered, examples, reader

ACCURACIES = {"correct": "accuracy", "robust": "robust_accuracy"}  # outputs of `gather` with a mean, and the mean's name
FINITE = "finite"  # the output of `gather` that is counted: whether all logits of an example are finite
ADVERSARIAL = "adversarial"  # the output of `gather` that stays on the device


@dataclasses.dataclass(frozen=True)
class Loop:
    """How an evaluation goes through a set. Every public evaluation takes these fields as keyword arguments.

    Attributes:
        batch_size: examples per batch over all devices, >= 1.
        mesh: one-dimensional, see `parallel.data_mesh`; None: all devices.
        progress: called after each batch as progress(examples done, examples in total, {name: figure so far}); None: no calls.
    """
    batch_size: int = 256
    mesh: Mesh | None = None
    progress: Callable | None = None

    def __post_init__(self):
        checks.count("batch_size", self.batch_size)
        if self.mesh is None:
            object.__setattr__(self, "mesh", parallel.data_mesh())

    @classmethod
    def take(cls, options):
        """The loop that some entries of `options` describe; they are removed from it."""
        return cls(**{field.name: options.pop(field.name) for field in dataclasses.fields(cls) if field.name in options})

    def part(self, i, passes, name=None):
        """This loop for pass i of several over one set: `progress` then counts the examples of all passes.

        name: reported in place of "accuracy"; None: the figures are reported as they are.
        """
        if self.progress is None:
            return self

        def progress(done, n, figures):
            self.progress(i * n + done, passes * n, figures if name is None else {name: figures["accuracy"]})
        return dataclasses.replace(self, progress=progress)


def over_set(run, source, loop, which=None, on_device=()):
    """Yield (positions (b,), outputs on the host) for each batch of a set, in order.

    The next batch is read and dispatched before the outputs of the last one are fetched.

    Args:
        run: batch -> dict of arrays (b, ...) on the mesh, see `on_mesh`; it must only dispatch work.
        which: as for `batches`.
        on_device: names of outputs that are yielded as they are, on the device.
    """
    def fetch(index, outputs):
        kept = {name: outputs[name] for name in on_device if name in outputs}
        index, fetched = parallel.to_host((index, {name: x for name, x in outputs.items() if name not in kept}))
        return index, fetched | kept

    pending = None
    for batch in batches(source, loop, which):
        outputs = run(batch)
        if pending is not None:
            yield fetch(*pending)
        pending = batch["index"], outputs
    if pending is not None:
        yield fetch(*pending)


def gather(run, source, loop, show=()):
    """Outputs of `run` over a whole set.

    Args:
        run: as for `over_set`.
        show: positions in the set whose output "adversarial" is returned; that of other examples is not fetched from the device.

    Returns:
        {name: (n, ...)}, "examples": n, and the means of `ACCURACIES`; "not_finite", the number of examples whose output "finite" is False, if
        there are any, in place of that output; "adversarial" (len(show), ...) if show is not empty.
    """
    n, places = examples(source), np.asarray(show, int).tolist()
    if not all(0 <= i < n for i in places):
        raise ValueError(f"show={show!r}: expected positions in the set, 0 to {n - 1}")
    seen, arrays, shown = np.zeros(n, bool), {}, {}
    for index, outputs in over_set(run, source, loop, on_device=(ADVERSARIAL,)):
        images = outputs.pop(ADVERSARIAL, None)
        if not set(places).isdisjoint(index.tolist()):
            shown.update(zip(index.tolist(), parallel.to_host(images), strict=True))
        seen[index] = True
        for name, values in outputs.items():
            arrays.setdefault(name, np.zeros((n, *values.shape[1:]), values.dtype))[index] = values
        if loop.progress:
            loop.progress(int(seen.sum()), n, _means(arrays, seen))
    lost = int((~arrays.pop(FINITE, np.ones(1, bool))).sum())
    counted, images = {"not_finite": lost} if lost else {}, {ADVERSARIAL: np.stack([shown[i] for i in places])} if places else {}
    return _means(arrays, seen) | counted | arrays | images | {"examples": n}


def _means(arrays, seen):
    return {mean: float(arrays[name][seen].mean()) for name, mean in ACCURACIES.items() if name in arrays}


def on_mesh(fn, tree, loop, key=None, program=None):
    """A function batch -> fn(tree, batch, key) over the mesh, with tree and key replicated; compiled once per fn, mesh and shapes.

    The program is kept as long as the functions in `tree`, see `programs`. Functions that may have changed since an earlier call are traced again, at
    the first batch; `program` of an earlier call is then used as it is, by one evaluation that goes through its set several times.
    """
    weak, functions = held(tree)
    program = program or compiled(fn, loop.mesh, functions, changes=not closures.all_constant(tree))
    weak, key = parallel.replicate((weak, key), loop.mesh)

    def run(batch, alive=tree):  # the functions must live while the program runs
        del alive
        return program(weak, batch, key)
    run.program = program
    return run


def compiled(fn, mesh, functions=(), changes=False):
    """`parallel.map_batch(fn, mesh)`, the same object for the same arguments.

    With `changes`, a new function that traces `fn` once per shape of the batch, and shares the programs of equal traces.
    """
    return (_PROGRAMS.current if changes else _PROGRAMS.get)(lambda: parallel.map_batch(fn, mesh, mesh.axis_names[0]), (fn, mesh), functions)


_PROGRAMS = Programs()


def classify(logits_fn, batch, attack=None, keys=None):
    """Classify the images of a batch, after `attack` if one is given.

    Returns {"correct" (b,) bool, "finite" (b,) bool, "margin" (b,) float32: max_{j != y} z_j - z_y, "adversarial": the images classified}.
    """
    images, labels = batch["image"], batch["label"]
    if attack is not None:
        images = attack(logits_fn, images, labels, keys)
    logits = logits_fn(images)
    return judge(logits, labels) | {"margin": losses.margin(logits, labels).astype(jnp.float32), ADVERSARIAL: images}


def classify_clean(tree, batch, key):
    """`judge` of a batch, for `on_mesh`; tree: (logits_fn,)."""
    del key
    logits_fn, = tree
    return judge(logits_fn(batch["image"]), batch["label"])


def judge(logits, labels):
    """{"correct", "finite"}, both (b,) bool: whether each image is classified correctly, and whether all its logits are finite."""
    return {"correct": losses.correct(logits, labels), FINITE: jnp.isfinite(logits).all(-1)}


def _check_labels(labels, index, classes, shape):
    """Raise unless labels are classes of the images at positions `index`, or maps of their shape; `dense` checks the maps' values on the device."""
    if getattr(labels, "ndim", 1) == 1:
        checks.classes(labels, len(index), classes, positions=index)
    elif labels.shape != shape[:3] or labels.dtype.kind not in "iu":
        raise ValueError(f"labels of shape {labels.shape} and {labels.dtype}: expected {shape[:3]} integers, one class per pixel")


def batches(source, loop, which=None):
    """Yield sharded batches {"image" in [0, 1], "label", "index"} that cover a set once, in order.

    All have loop.batch_size rows, rounded up to a multiple of the devices and at most as many as the set needs, so one compilation serves
    all.
    The last batch repeats its last row: rows with the same index are the same image. Every process reads only its own rows.

    Args:
        source: a pair (images (n, H, W, C), labels (n,)), or a source of `vmamba_jax.data`. Images are uint8, or floating in [0, 1].
        which: ascending positions of the examples to cover; None: all.
    """
    read, n = reader(source)
    classes, mesh = source.classes if isinstance(source, Entered) else None, loop.mesh
    size = -(-min(loop.batch_size, n) // mesh.size) * mesh.size
    which = np.arange(n) if which is None else np.asarray(which)
    processes = sorted({device.process_index for device in mesh.devices.flat})
    rows = size // len(processes)
    for start in range(0, len(which), size):
        first = start + rows * processes.index(jax.process_index())
        index = which[np.unique(np.minimum(np.arange(first, first + rows), len(which) - 1))]
        images, labels = read(index)
        _check_labels(labels, index, classes, images.shape)
        batch = {"image": unit_interval(images), "label": np.asarray(labels, np.int32), "index": index.astype(np.int32)}
        yield parallel.shard_batch(parallel.pad_batch(batch, rows)[0], mesh)
