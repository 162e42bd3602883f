"""Tiny-ImageNet (Stanford CS231n, 2015): 200 classes of 500 training and 50 validation images, 64 x 64, from its zip file or unpacked."""
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.data import splits
from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.datasets.tar import is_image
from vmamba_jax.data.decoding.archives import ArchivedImages, Directory, Zip
from vmamba_jax.data.decoding.images import Decoder

NAME = "tiny-imagenet-200"
ADVICE = (
    f"Tiny-ImageNet needs {NAME}.zip as released (cs231n.stanford.edu/{NAME}.zip) in ROOT or ROOT/tiny_imagenet, or its unpacked content: "
    f"wnids.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt, in ROOT or ROOT/{NAME}."
)


def load(split, root=None, *, validation=0, classes=None, size=None, resize=None, interpolation="bicubic", draft=None, workers=None):
    """Tiny-ImageNet, decoded on demand from its folders or, without unpacking it, from the zip file; prefers the folders.

    Args:
        split: "train", "validation" or "test"; "test" is the released validation set (the labels of the released test set are not published).
        root: see `data.load`.
        validation: number of training images held out as split "validation" (stratified, fixed), "train" is the rest; 0: split "validation"
            is the released validation set too.
        classes: number of identifiers to use, the first ones of wnids.txt; 50 is the subset of Qi et al. (arXiv 2406.05532); None: all.
            Labels number these identifiers in sorted order, as image folders do.
        size, resize, interpolation, draft: see `decoding.images.Decoder`; size=None: 64 x 64.
        workers: decoding threads; None: one per processor.

    Raises:
        DataNotFoundError: absent files.
        ValueError: damaged files, or a validation image without annotation.
    """
    check_split(split)
    decoder = Decoder(size, resize, interpolation, exif=False, draft=draft)
    checks.count("validation", validation, 0)
    archive, prefix = _find(root_folder(root, ADVICE))
    released = archive.text(prefix + "wnids.txt").split()
    if classes is not None and checks.count("classes", classes) > len(released):
        raise ValueError(f"classes={classes}: expected at most the {len(released)} of wnids.txt")
    selected = sorted(released[:classes])
    training = split == "train" or (split == "validation" and validation)
    found = _training(archive, prefix) if training else _validation(archive, prefix)
    labels = {identifier: k for k, identifier in enumerate(selected)}
    entries = [(i, labels[identifier]) for _, identifier, i in sorted(found) if identifier in labels]
    if not entries:
        raise DataNotFoundError(f"{archive.path}: expected images of split {split!r}, got none. {ADVICE}")
    members, labels = np.array(entries).T
    if training:
        part = splits.hold_out(labels, validation, split)
        members, labels = members[part], labels[part]
    return ArchivedImages(archive, members, labels, selected, decoder, name="tiny_imagenet", split=split, workers=workers)


def _find(root):
    for folder in (root / NAME, root / "tiny_imagenet" / NAME, root, root / "tiny_imagenet"):
        if (folder / "wnids.txt").is_file():
            return Directory(folder), ""
    for path in (root / f"{NAME}.zip", root / "tiny_imagenet" / f"{NAME}.zip"):
        if path.is_file():
            archive = Zip(path)
            if f"{NAME}/wnids.txt" not in archive.names:
                raise ValueError(f"{path}: expected a member {NAME}/wnids.txt. {ADVICE}")
            return archive, f"{NAME}/"
    raise DataNotFoundError(f"root={str(root)!r}: expected the files of the set, got none of them. {ADVICE}")


def _training(archive, prefix):
    """(name, identifier, member) of every training image."""
    prefix += "train/"
    return [(name, name.removeprefix(prefix).split("/")[0], i) for i, name in enumerate(archive.names)
            if name.startswith(prefix) and is_image(name)]


def _validation(archive, prefix):
    """(name, identifier, member) of every validation image; their identifiers are in val_annotations.txt."""
    text = archive.text(prefix + "val/val_annotations.txt")
    if text is None:
        raise DataNotFoundError(f"{archive.path} lacks {prefix}val/val_annotations.txt. {ADVICE}")
    rows = [line.split("\t")[:2] for line in text.splitlines()]
    if any(len(row) != 2 for row in rows):
        raise ValueError(f"{archive.path}: expected lines <image> <tab> <identifier> in {prefix}val/val_annotations.txt")
    identifiers, prefix = dict(rows), prefix + "val/images/"
    found = [(name, name.removeprefix(prefix), i) for i, name in enumerate(archive.names) if name.startswith(prefix) and is_image(name)]
    if unknown := [name for name, file, _ in found if file not in identifiers]:
        raise ValueError(f"{archive.path}: expected a line of val_annotations.txt for every image, missing {unknown[0]}, {len(unknown)} in all")
    return [(name, identifiers[file], i) for name, file, i in found]
