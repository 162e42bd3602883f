"""Image files in one folder per class: ROOT/<split>/<class>/**/<image> as in ImageNet, or ROOT/<class>/**/<image> with splits drawn from it."""
import functools
import os
import pathlib

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.data import splits
from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.decoding.archives import visible_files
from vmamba_jax.data.decoding.images import Decoder, file_size, read_file
from vmamba_jax.data.source import Decoded, digest

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
ADVICE = (
    "An image folder is ROOT/<split>/<class>/<image> with split train, validation (or val, valid) or test, and image a file that ends in "
    f"{', '.join(EXTENSIONS)}; for ImageNet ('Download ImageNet Data', image-net.org) ROOT/val/n01440764/ILSVRC2012_val_00000293.JPEG. "
    "Pass subdir=... for a split folder of another name ('.' for ROOT itself), validation=0.2 or test=0.2 to draw an absent split from the training images."
)


def load(split, root=None, *, size=None, resize=None, interpolation="bicubic", channels=3, exif=True, draft=None, subdir=None,
         classes=None, workers=None, validation=0, test=0):
    """Images decoded on demand from one folder per class; hidden files and other file types are left out.

    The training images are in ROOT/train, or in ROOT itself if it has no folder of any split.

    Args:
        split: "train", "validation" or "test".
        root: see `data.load`.
        size, resize, interpolation, channels, exif, draft: see `decoding.images.Decoder`. Batches need images of one size, so pass `size`
            unless the files already have one.
        subdir: folder under root of this split; None: the split's own name. With `validation` or `test`: folder of all splits.
        classes: folder names in label order, for sets with only some of the classes (a name without a folder is allowed, a folder without a
            name is an error); None: the sorted folder names.
        workers: decoding threads; None: one per processor.
        validation, test: size of that split if it has no folder: a number of images, or a share below 1 of them. They are drawn from the
            training images with a fixed seed, every class in proportion, and the training split is the rest; other files give another draw.
            0: nothing is drawn.

    Raises:
        DataNotFoundError: an absent folder.
        ValueError: a class without images, or without training images after the draw; on reading, a file that does not decode, by name.
    """
    decoder = Decoder(size, resize, interpolation, channels, exif, draft)
    held_out = {"validation": _size("validation", validation), "test": _size("test", test)}
    folder, found, drawn = _find(split, root, subdir, held_out)
    classes = found if classes is None else [str(name) for name in classes]
    if unknown := sorted(set(found) - set(classes)):
        raise ValueError(f"classes: expected the names of all folders of {str(folder)!r}, missing {', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}")
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes={classes}: expected each name once")
    files = [(path, label) for label, name in enumerate(classes) if name in found for path in _class_files(folder, name)]
    if drawn:
        files = [files[i] for i in _draw([label for _, label in files], split, drawn, folder, classes)]
    name = folder.resolve().name if folder.samefile(root_folder(root, ADVICE)) else None
    return ImageFolder(folder, files, classes, decoder, split, workers, name)


def class_folders(split, root=None, subdir=None, validation=0, test=0):
    """(path of a split's folder, sorted names of its class folders), without a look at the images; arguments and errors as for `load`."""
    return _find(split, root, subdir, {"validation": validation, "test": test})[:2]


def is_drawn(split, root=None, subdir=None, validation=0, test=0):
    """Whether the images of a split depend on a draw from the training images; arguments and errors as for `load`."""
    return bool(_find(split, root, subdir, {"validation": validation, "test": test})[2])


def _find(split, root, subdir, held_out):
    """(a split's folder, sorted names of its class folders, {split: size} of the splits that are drawn from it; {} if the whole folder is the split)."""
    check_split(split)
    root = root_folder(root, ADVICE)
    own = {name: _first(root, folders) for name, folders in SPLIT_FOLDERS.items()}
    drawn = {name: size for name, size in held_out.items() if size and (subdir is not None or own[name] is None)}
    folders = (str(subdir),) if subdir is not None else SPLIT_FOLDERS["train" if split in drawn else split]
    if subdir is None and drawn and not any(own.values()):
        folders = (".",)
    folder = _first(root, folders)
    if folder is None:
        raise DataNotFoundError(f"root={str(root)!r}: expected a folder {' or '.join(map(repr, folders))}. {ADVICE}")
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise DataNotFoundError(f"{str(folder)!r}: expected class folders. {ADVICE}")
    return folder, found, drawn if split == "train" or split in drawn else {}


def _first(root, names):
    return next((root / name for name in names if (root / name).is_dir()), None)


def _size(name, value):
    """`value` as a number of images, or a share in [0, 1)."""
    return checks.number(name, value, low=0, below=1) if isinstance(value, float) else checks.count(name, value, 0)


def _draw(labels, split, drawn, folder, classes):
    """Positions of a split in the training images: the draw of `splits.stratified` with seed 0."""
    sizes = {name: max(1, round(size * len(labels))) if isinstance(size, float) else size for name, size in drawn.items()}
    listed = ", ".join(f"{name}={size}" for name, size in drawn.items())
    if sum(sizes.values()) >= len(labels):
        raise ValueError(f"{listed}: expected to leave training images, got {len(labels)} images in {str(folder)!r}")
    parts = splits.stratified(labels, (len(labels) - sum(sizes.values()), *sizes.values()), seed=0)
    if lost := sorted(set(labels) - set(np.asarray(labels)[parts[0]].tolist())):
        raise ValueError(f"{listed}: expected to leave training images of every class, got none of {classes[lost[0]]!r}, which has "
                         f"{labels.count(lost[0])} of the {len(labels)} images in {str(folder)!r}")
    return dict(zip(("train", *sizes), parts, strict=True))[split]


class ImageFolder(Decoded):
    """Image files below a folder, decoded on demand.

    Args:
        folder: path of the folder.
        files: [(path relative to the folder, label)].
        classes, decoder, split, workers: see `Decoded`.
        name: of the set; None: that of the folder above.
    """

    def __init__(self, folder, files, classes, decoder, split, workers=None, name=None):
        super().__init__(name or pathlib.Path(folder).resolve().parent.name or "folder", split, classes, decoder, workers)
        self.folder = pathlib.Path(folder)
        self.files = [path for path, _ in files]
        self._labels = np.array([label for _, label in files], np.int32)
        self._labels.flags.writeable = False

    labels = property(lambda self: self._labels, doc="(n,) int32, read-only.")

    def __len__(self):
        return len(self.files)

    def _records(self, indices):
        return [self.folder / self.files[i] for i in indices], self._labels[indices]

    def _encoded(self, path):
        return read_file(path), path

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 of class names, labels, relative paths, file sizes and the decoding options; the files are not read."""
        sizes = np.array([file_size(self.folder / name) for name in self.files], "<i8")
        return digest(self.classes, self._labels.astype("<i4"), self.files, sizes, self.decoder)


def _class_files(folder, name):
    """Sorted paths, relative to `folder` and with "/", of all images at any depth below one class folder."""
    paths = [f"{name}/{path}" for path in visible_files(folder / name) if path.lower().endswith(EXTENSIONS)]
    if not paths:
        raise ValueError(f"{str(folder / name)!r}: expected files that end in {', '.join(EXTENSIONS)}, got no images")
    return sorted(paths)
