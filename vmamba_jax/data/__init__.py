"""Labeled image sets as sources, batches that are a pure function of the step, and augmentation.

    source = data.load("cifar10", "train", root="/data", validation=5000)
    batches = data.Batches(source, 256, seed=0)
    batches[t]                    # {"image": (256, 32, 32, 3) float32 in [0, 1], "label": int32, "index": int64}
    augment = data.augment.create("crop_flip", pad=4)
    images = augment(batches[t]["image"], key)

A source has uint8 images (H, W, C) with int labels, in memory or decoded on demand; see `data.Source`. For sets larger than memory
`data.Pipeline` makes the same batches, decoded on threads or in processes, with a random transform of every image on the host:

    source = data.load("imagenet", "train", root="/data")
    pipeline = data.Pipeline(source, 1024, seed=0, transform=transform, workers=8)
    for batch in pipeline.iterate(start): ...

`data.Mixed` mixes one set into another. Absent files raise `data.DataNotFoundError` with the files to put there; damaged files raise a
ValueError with the name of the file; images that do not decode raise `data.BadImageError`, of which a pipeline skips up to `max_bad`.
"""
from vmamba_jax.core import checks
from vmamba_jax.data import annotations, augment, transforms
from vmamba_jax.data.augment import mix
from vmamba_jax.data.batching.annotated import Annotated
from vmamba_jax.data.batching.batches import Batches, epoch, on_device, prefetch
from vmamba_jax.data.batching.dense import DensePipeline
from vmamba_jax.data.batching.meter import Meter, input_rate
from vmamba_jax.data.batching.pipeline import BadImagesError, Pipeline, Stream
from vmamba_jax.data.batching.shifted import Shifted
from vmamba_jax.data.class_names import load_class_names, save_class_names
from vmamba_jax.data.combined import Mixed, Repeated
from vmamba_jax.data.datasets import (
    ade20k,
    cifar10,
    coco,
    corrupted,
    cued_shapes,
    dense_shapes,
    digits,
    folder,
    imagenet,
    mnist,
    npz,
    shards,
    tar,
    tfds,
    tiny_imagenet,
)
from vmamba_jax.data.datasets.locate import DataNotFoundError
from vmamba_jax.data.decoding.images import BadImageError
from vmamba_jax.data.dense import DenseArrays, DenseSource
from vmamba_jax.data.resized import Resized
from vmamba_jax.data.source import Arrays, Source, Subset, subset
from vmamba_jax.data.subsets import match_classes, select_classes, subset_from_list

__all__ = [
    "Annotated", "Arrays", "BadImageError", "BadImagesError", "Batches", "DataNotFoundError", "DenseArrays", "DensePipeline", "DenseSource", "Meter", "Mixed", "Pipeline", "Repeated", "Resized", "Shifted", "Source", "Stream", "Subset",
    "annotations", "augment", "epoch", "input_rate", "load", "load_class_names", "match_classes", "mix", "names", "on_device", "prefetch", "save_class_names",
    "select_classes", "subset", "subset_from_list", "transforms",
]

_LOADERS = {
    "digits": digits.load, "cued_shapes": cued_shapes.load, "dense_shapes": dense_shapes.load, "ade20k": ade20k.load, "coco": coco.load, "mnist": mnist.load, "cifar10": cifar10.load, "cifar10_c": corrupted.load_cifar10_c, "imagenet": imagenet.load,
    "imagenet_c": corrupted.load_imagenet_c, "tiny_imagenet": tiny_imagenet.load,
    "folder": folder.load, "tar": tar.load, "npz": npz.load,
    "webdataset": shards.webdataset, "tfrecord": shards.tfrecord, "array_record": shards.array_record,
}
_TFDS = "tfds:"


def names():
    """The names that `load` accepts; "tfds:<name>" is any prepared TFDS set."""
    return [*_LOADERS, _TFDS + "<name>"]


def load(name, split, root=None, **options):
    """One split of a data set, as a `Source`.

    Args:
        name: "digits" (scikit-learn's 8x8 digits), "cued_shapes" (rendered, with masks and a planted cue), "dense_shapes" (rendered, with label maps
            and instances), "ade20k" and "coco" (label maps and instances, see `data.DensePipeline`), "mnist", "cifar10", "imagenet"
            (the released tar files), "tiny_imagenet" (zip or unpacked), "imagenet_c" and "cifar10_c" (the released corrupted sets, split
            "test", by corruption=, severity=), "folder" (one folder of image files per class), "tar" (the same in a tar file), "npz" (arrays
            image and label), "webdataset", "tfrecord" and "array_record" (shards, also by URL) or "tfds:<name>" with TFDS's own name, e.g. "tfds:imagenet2012:5.1.0".
        split: "train", "validation" or "test" ("tfds:" sets also accept their own names and slices, such as "train[:10%]").
        root: folder with the files, or a parent of the usual folder name. None: $VMAMBA_JAX_DATA, and for "tfds:" TFDS's own
            default; "digits" and the rendered sets ignore it.
        options: of the set, documented in its module of `data.datasets`.

    Raises:
        DataNotFoundError: absent files; a FileNotFoundError.
        ValueError: damaged files, or an unknown name or split.
        TypeError: an unknown option.
    """
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: expected a str, one of {', '.join(map(repr, names()))}")
    if name.startswith(_TFDS):
        return checks.by_name("dataset", name, {name: tfds.load}, options, positional=3)(name.removeprefix(_TFDS), split, root, **options)
    checks.choice("dataset", name, names())
    return checks.by_name("dataset", name, _LOADERS, options, positional=2)(split, root, **options)
