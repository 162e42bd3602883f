"""Image files in one folder per class, as ImageNet and its kin are kept: ROOT/<split>/<class>/**/<image>."""
import functools
import os
import pathlib

import numpy as np

from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.decoding.images import Decoder
from vmamba_jax.data.source import Decoded, digest

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
ADVICE = (
    "An image folder is ROOT/<split>/<class>/<image>, split being train, validation (or val, valid) or test, and image a file ending in "
    f"{', '.join(EXTENSIONS)}; for ImageNet ('Download ImageNet Data', image-net.org) ROOT/val/n01440764/ILSVRC2012_val_00000293.JPEG. "
    "Pass subdir=... for a split folder of another name ('.' for ROOT itself)."
)


def load(split, root=None, *, size=None, resize=None, interpolation="bicubic", channels=3, exif=True, draft=None, subdir=None,
         classes=None, workers=None):
    """Images decoded on demand from one folder per class.

    size, resize, interpolation, channels, exif, draft: see `data.images.Decoder`; batches need images of one size, so give `size` unless the
        files already have one.
    subdir: folder under root to read for this split, in place of the split's own name.
    classes: folder names in label order, for sets that hold only some of the classes (a name without a folder is then allowed, a folder
        without a name is not); None: the sorted folder names.
    workers: decoding threads; None: one for each processor.
    Hidden files and other endings are left out. Raises DataNotFoundError for an absent folder, ValueError for a class without images
    and, on reading, for a file that does not decode (naming it).
    """
    check_split(split)
    decoder = Decoder(size, resize, interpolation, channels, exif, draft)
    root = root_folder(root, ADVICE)
    folders = SPLIT_FOLDERS[split] if subdir is None else (str(subdir),)
    folder = next((root / name for name in folders if (root / name).is_dir()), None)
    if folder is None:
        raise DataNotFoundError(f"{str(root)!r} has no folder {' or '.join(map(repr, folders))}. {ADVICE}")
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise DataNotFoundError(f"{str(folder)!r} has no class folders. {ADVICE}")
    classes = found if classes is None else [str(name) for name in classes]
    if unknown := sorted(set(found) - set(classes)):
        raise ValueError(f"{str(folder)!r} has folders that classes does not list: {', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}")
    if len(set(classes)) != len(classes):
        raise ValueError("classes must not repeat a name")
    files = [(path, label) for label, name in enumerate(classes) if name in found for path in _class_files(folder, name)]
    return Folder(folder, files, classes, decoder, split, workers)


class Folder(Decoded):
    """Image files decoded when asked for. files: [(path relative to folder, label)]."""

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
        return path.read_bytes(), path

    @functools.cached_property
    def fingerprint(self):
        """sha256 of class names, labels, relative paths, file sizes and the decoding options; the files are not read."""
        sizes = np.array([(self.folder / name).stat().st_size for name in self.files], "<i8")
        return digest(self.classes, self._labels.astype("<i4"), self.files, sizes, self.decoder)


def _class_files(folder, name):
    """Paths (relative to folder, with "/") of all images anywhere below one class folder, sorted."""
    paths = []
    for parent, folders, files in os.walk(folder / name, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        paths += [os.path.join(parent, f) for f in files if f.lower().endswith(EXTENSIONS) and not f.startswith(".")]
    if not paths:
        raise ValueError(f"{str(folder / name)!r} holds no images; expected files ending in {', '.join(EXTENSIONS)}")
    return sorted(os.path.relpath(path, folder).replace(os.sep, "/") for path in paths)
