"""Natural distribution shifts of ImageNet: classes and folders of the sets, and accuracy over their classes.

ImageNet-A (Hendrycks et al., arXiv 1907.07174) and -R (arXiv 2006.16241) have 200 of the 1000 classes each. Published accuracies use
the argmax over the logits of these 200 classes, with labels numbered by WordNet identifier; the argmax over all 1000 gives lower values. ImageNet-V2 (arXiv 1902.10811) and -Sketch (arXiv 1905.13549) have all 1000.
"""
import dataclasses
import pathlib

import jax.numpy as jnp
from jax.tree_util import Partial

from vmamba_jax import data
from vmamba_jax.core import checks
from vmamba_jax.core.closures import argument
from vmamba_jax.core.deprecation import renamed
from vmamba_jax.core.results import Result
from vmamba_jax.core.statistics import gap_interval, summary
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.evaluation.accuracy import accuracy
from vmamba_jax.evaluation.loop import Loop


@dataclasses.dataclass(frozen=True)
class Shift:
    """A set.

    Attributes:
        folder: name of the released folder.
        tfds: name in TFDS.
        examples: number of images.
        folders: names of its class folders: WordNet "identifiers" or label "numbers".
    """
    folder: str
    tfds: str
    examples: int
    folders: str = "identifiers"


SHIFTS = {
    "imagenet_a": Shift("imagenet-a", "imagenet_a", 7500),
    "imagenet_r": Shift("imagenet-r", "imagenet_r", 30000),
    "imagenet_v2": Shift("imagenetv2-matched-frequency-format-val", "imagenet_v2/matched-frequency", 10000, "numbers"),
    "imagenet_v2_threshold": Shift("imagenetv2-threshold0.7-format-val", "imagenet_v2/threshold-0.7", 10000, "numbers"),
    "imagenet_v2_top": Shift("imagenetv2-top-images-format-val", "imagenet_v2/topimages", 10000, "numbers"),
    "imagenet_sketch": Shift("sketch", "imagenet_sketch", 50889),
}


def columns(shift):
    """The set's classes as ImageNet-1k labels, ascending: 200 integers for ImageNet-A and -R, all 1000 for the others."""
    checks.choice("shift", shift, SHIFTS)
    return imagenet.subsets().get(shift, tuple(range(1000)))


def identifiers(shift):
    """The set's classes as WordNet identifiers, in label order."""
    known = imagenet.classes()
    return tuple(known[k][0] for k in columns(shift))


def sliced(logits_fn, shift):
    """A function images -> logits of the set's classes, in label order; `logits_fn` itself for a set with all classes."""
    return _over(logits_fn, columns(shift))


def over_classes(logits_fn, source):
    """A function images -> logits (b, classes) of the classes of a source, in its label order; `logits_fn` itself for all in order.

    Published accuracies on some of ImageNet's classes (ImageNet-A and -R, Imagenette, ImageNet-100) take the argmax over these logits.

    Args:
        logits_fn: [0, 1] images -> logits of the 1000 classes of ImageNet-1k.
        source: a source of `vmamba_jax.data` whose classes are WordNet identifiers or label numbers, such as a folder of class folders.

    Raises:
        ValueError: a class that ImageNet-1k does not have, or fewer than two classes.
    """
    return _over(logits_fn, columns_of(source.classes))


def columns_of(names):
    """Positions in ImageNet's 1000 logits of the classes that a set is evaluated over; names and errors as for `over_classes`."""
    chosen = imagenet.labels_of(names)
    if len(chosen) < 2:
        raise ValueError(f"classes={', '.join(map(str, names))}: expected at least two classes, as the accuracy over one is always 1")
    return chosen


def _over(logits_fn, chosen):
    everything = tuple(chosen) == tuple(range(len(imagenet.classes())))
    return logits_fn if everything else Partial(_columns, argument(logits_fn), jnp.asarray(chosen))


def load(shift, root=None, *, tfds=False, file_list=None, **options):
    """The set's images as a source, labeled in the order of `identifiers(shift)`.

    Args:
        root: the released folder (`SHIFTS[shift].folder`) or its parent; for TFDS its data_dir.
        tfds: read the set prepared by TFDS instead of folders.
        file_list: see `data.subset_from_list`; None: all images.
        options: for `data.load("folder", ...)`, or for "tfds:"; published accuracies use size=224, resize=256, interpolation="bicubic".
    """
    checks.choice("shift", shift, SHIFTS)
    about = SHIFTS[shift]
    if tfds:
        source = relabeled(data.load(f"tfds:{about.tfds}", "test", root, **options), shift)
    else:
        names = identifiers(shift) if about.folders == "identifiers" else tuple(map(str, range(1000)))
        inside = root is not None and not (pathlib.Path(root) / about.folder).is_dir()
        source = data.load("folder", "test", root, subdir="." if inside else about.folder, classes=names, **options)
    return source if file_list is None else data.subset_from_list(source, file_list)


def relabeled(source, shift):
    """The images of a source that belong to the set's classes, labeled in their order: for example the validation set, for the gap.

    source: a source of `vmamba_jax.data` whose classes are WordNet identifiers.
    """
    return data.select_classes(source, identifiers(shift))


def shift_accuracy(logits_fn, source, shift, *, validation=None, **loop) -> Result:
    """Accuracy over the classes of a set.

    Args:
        logits_fn: [0, 1] images -> logits of the 1000 classes of ImageNet-1k.
        source: the set, as from `load`; or a pair (images, labels), labeled in the order of `identifiers(shift)`.
        validation: ImageNet's validation set, as from `data.load("imagenet", "validation")`; its images of the same classes are classified
            too. None: no gap.
        loop: as for `robust_accuracy`; progress counts the set, not the validation images.

    Returns:
        The row of `summary` with "shift", "classes", and "set", "split" and "fingerprint" of the source (None for a pair), which identify
        the subset. With `validation` also its "validation_" entries, and "gap", the validation accuracy minus the accuracy, with its 95 %
        interval (Newcombe 1998, method 10).
    """
    fn, loop = sliced(logits_fn, shift), Loop(**loop)
    result = accuracy(fn, source, **vars(loop))
    row = {"shift": shift, "classes": len(columns(shift))} | summary(result) | _which(source)
    if validation is None:
        return Result(row)
    validation = relabeled(validation, shift)
    before = accuracy(fn, validation, batch_size=loop.batch_size, mesh=loop.mesh)
    added = {f"validation_{name}": value for name, value in (summary(before) | _which(validation)).items()}
    counts = [(int(each["correct"].sum()), each["examples"]) for each in (before, result)]
    return Result(row | added | {"gap": before["accuracy"] - result["accuracy"], "gap_interval": gap_interval(*counts[0], *counts[1])})


def _columns(logits_fn, chosen, images):
    logits = logits_fn(images)
    if logits.shape[-1] != 1000:
        raise ValueError(f"logits have shape {logits.shape}: expected (b, 1000), the classes of ImageNet-1k")
    return logits[:, chosen]


def _which(source):
    return {"set": getattr(source, "name", None)} | {name: getattr(source, name, None) for name in ("split", "fingerprint")}


__getattr__ = renamed(__name__, {"relabelled": f"{__name__}:relabeled"})
