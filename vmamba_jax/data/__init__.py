"""Labelled image sets as sources, batches that are a pure function of the step, and augmentation.

    source = data.load("cifar10", "train", root="/data", validation=5000)
    batches = data.Batches(source, 256, seed=0)
    batches[t]                    # {"image": (256, 32, 32, 3) float32 in [0, 1], "label": int32, "index": int64}
    augment = data.augment.create("crop_flip", pad=4)
    images = augment(batches[t]["image"], key)

A source holds or decodes uint8 images (H, W, C) with int labels; see `data.Source`. For sets that do not fit in memory
`data.Pipeline` gives the same batches, decoded on threads or in processes, with a random transform of every image on the host:

    source = data.load("imagenet", "train", root="/data")
    pipeline = data.Pipeline(source, 1024, seed=0, transform=transform, workers=8)
    for batch in pipeline.iterate(start): ...

`data.Mixed` mixes one set into another. Absent files raise `data.DataNotFoundError` saying what to put where; damaged files raise
ValueError naming the file; images that do not decode `data.BadImageError`, of which a pipeline leaves out up to `max_bad`.
"""
from vmamba_jax.core import checks
from vmamba_jax.data import augment, transforms
from vmamba_jax.data.augment import mix
from vmamba_jax.data.batching.batches import Batches, epoch, prefetch
from vmamba_jax.data.batching.device import on_device
from vmamba_jax.data.batching.meter import Meter, input_rate
from vmamba_jax.data.batching.pipeline import BadImagesError, Pipeline, Stream
from vmamba_jax.data.combined import Mixed
from vmamba_jax.data.datasets import cifar10, cifar10_c, digits, folder, imagenet, imagenet_c, mnist, npz, tar, tfds, tiny_imagenet
from vmamba_jax.data.datasets.locate import DataNotFoundError
from vmamba_jax.data.decoding.images import BadImageError
from vmamba_jax.data.repeated import Repeated
from vmamba_jax.data.source import Arrays, Source, Subset, subset
from vmamba_jax.data.subsets import select_classes, subset_from_list

__all__ = [
    "Arrays", "BadImageError", "BadImagesError", "Batches", "DataNotFoundError", "Meter", "Mixed", "Pipeline", "Repeated", "Source", "Stream", "Subset",
    "augment", "epoch", "input_rate", "load", "mix", "names", "on_device", "prefetch", "select_classes", "subset", "subset_from_list", "transforms",
]

_LOADERS = {
    "digits": digits.load, "mnist": mnist.load, "cifar10": cifar10.load, "cifar10_c": cifar10_c.load, "imagenet": imagenet.load,
    "imagenet_c": imagenet_c.load, "tiny_imagenet": tiny_imagenet.load,
    "folder": folder.load, "tar": tar.load, "npz": npz.load,
}
_TFDS = "tfds:"


def names():
    """The names `load` knows; "tfds:<name>" stands for every prepared TFDS set."""
    return [*_LOADERS, _TFDS + "<name>"]


def load(name, split, root=None, **options):
    """Open one split of a data set.

    name: "digits" (scikit-learn's 8x8 digits), "mnist", "cifar10", "imagenet" (the released tar files), "tiny_imagenet" (zip or
        unpacked), "imagenet_c" and "cifar10_c" (the released corrupted sets, split "test", by corruption=, severity=), "folder" (one
        folder of image files per class), "tar" (the same in a tar file), "npz" (arrays image and label) or
        "tfds:<name>" with TFDS's own spelling, e.g. "tfds:imagenet2012:5.1.0".
    split: "train", "validation" or "test" ("tfds:" sets also take their own names and slices, such as "train[:10%]").
    root: folder that holds the files, or a parent of the usual folder name. None: $VMAMBA_JAX_DATA, and for "tfds:" TFDS's own
        default; "digits" needs none and ignores it.
    options: the set's own, documented at `load` of the module of that name ("tfds:": `data.prepared`).
    Raises DataNotFoundError (a FileNotFoundError) for absent files, ValueError for damaged ones, an unknown name or split, TypeError
    for an unknown option.
    """
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: expected a str, one of {', '.join(map(repr, names()))}")
    if name.startswith(_TFDS):
        return checks.by_name("dataset", name, {name: tfds.load}, options, positional=3)(name.removeprefix(_TFDS), split, root, **options)
    checks.choice("dataset", name, names())
    return checks.by_name("dataset", name, _LOADERS, options, positional=2)(split, root, **options)
