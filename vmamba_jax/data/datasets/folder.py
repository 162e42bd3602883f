"""Image files in one folder per class, as in ImageNet: ROOT/<split>/<class>/**/<image>."""
import functools
import os
import pathlib

import numpy as np

from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.decoding.archives import visible_files
from vmamba_jax.data.decoding.images import Decoder, file_size, read_file
from vmamba_jax.data.source import Decoded, digest

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
ADVICE = (
    "An image folder is ROOT/<split>/<class>/<image> with split train, validation (or val, valid) or test, and image a file that ends in "
    f"{', '.join(EXTENSIONS)}; for ImageNet ('Download ImageNet Data', image-net.org) ROOT/val/n01440764/ILSVRC2012_val_00000293.JPEG. "
    "Pass subdir=... for a split folder of another name ('.' for ROOT itself)."
)


def load(split, root=None, *, size=None, resize=None, interpolation="bicubic", channels=3, exif=True, draft=None, subdir=None,
         classes=None, workers=None):
    """Images decoded on demand from one folder per class; hidden files and other file types are left out.

    Args:
        split: "train", "validation" or "test".
        root: see `data.load`.
        size, resize, interpolation, channels, exif, draft: see `decoding.images.Decoder`. Batches need images of one size, so pass `size`
            unless the files already have one.
        subdir: folder under root of this split; None: the split's own name.
        classes: folder names in label order, for sets with only some of the classes (a name without a folder is allowed, a folder without a
            name is an error); None: the sorted folder names.
        workers: decoding threads; None: one per processor.

    Raises:
        DataNotFoundError: an absent folder.
        ValueError: a class without images; on reading, a file that does not decode, by name.
    """
    decoder = Decoder(size, resize, interpolation, channels, exif, draft)
    folder, found = class_folders(split, root, subdir)
    classes = found if classes is None else [str(name) for name in classes]
    if unknown := sorted(set(found) - set(classes)):
        raise ValueError(f"classes: expected the names of all folders of {str(folder)!r}, missing {', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}")
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes={classes}: expected each name once")
    files = [(path, label) for label, name in enumerate(classes) if name in found for path in _class_files(folder, name)]
    return ImageFolder(folder, files, classes, decoder, split, workers)


def class_folders(split, root=None, subdir=None):
    """(path of a split's folder, sorted names of its class folders), without a look at the images; arguments and errors as for `load`."""
    check_split(split)
    root = root_folder(root, ADVICE)
    folders = SPLIT_FOLDERS[split] if subdir is None else (str(subdir),)
    folder = next((root / name for name in folders if (root / name).is_dir()), None)
    if folder is None:
        raise DataNotFoundError(f"root={str(root)!r}: expected a folder {' or '.join(map(repr, folders))}. {ADVICE}")
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise DataNotFoundError(f"{str(folder)!r}: expected class folders. {ADVICE}")
    return folder, found


class ImageFolder(Decoded):
    """Image files below a folder, decoded on demand.

    Args:
        folder: path of the folder.
        files: [(path relative to the folder, label)].
        classes, decoder, split, workers: see `Decoded`.
    """

    def __init__(self, folder, files, classes, decoder, split, workers=None):
        super().__init__(pathlib.Path(folder).resolve().parent.name or "folder", split, classes, decoder, workers)
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
