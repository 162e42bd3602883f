"""ADE20K as released for scene parsing (ADEChallengeData2016): images, and label maps of 150 classes."""
import functools
import io
import pathlib

import numpy as np
from PIL import Image

from vmamba_jax.core import checks, limits
from vmamba_jax.core.labels import IGNORE
from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.decoding.images import BadImageError, Decoder, as_array, center_crop, check_pixels, file_size, read_file, resize_short
from vmamba_jax.data.dense import DenseSource
from vmamba_jax.data.source import digest

CLASSES = 150
FOLDERS = ("", "ADEChallengeData2016")
PARTS = {"train": "training", "validation": "validation", "test": "validation"}
NAMES = "objectInfo150.txt"
ADVICE = ("ADE20K is ROOT/images/{training,validation}/*.jpg and ROOT/annotations/{training,validation}/*.png of ADEChallengeData2016.zip "
          "(MIT scene parsing benchmark, sceneparsing.csail.mit.edu), with ROOT/objectInfo150.txt for the names of the classes.")


def load(split, root=None, *, size=None, classes=None, zero_is_ignored=True):
    """Images with label maps, decoded on demand; the same layout serves any set of image and label folders.

    Args:
        split: "train", "validation" or "test", which is the released validation set.
        root: see `data.load`.
        size: resize the short side to `size` and take the center square; None: images keep their size, for a `DensePipeline` with a transform.
        classes: names of the classes; None: those of objectInfo150.txt, or their numbers from 1 to 150.
        zero_is_ignored: label 0 of the files is ignored, and label k + 1 is class k, as ADE20K has it. False: label k is class k, 255 is ignored.

    Raises:
        DataNotFoundError: absent folders, or an image without label map.
        ValueError, on reading: a file that does not decode, a label map of another size than its image, a label that is no class; by name.
    """
    check_split(split)
    root = root_folder(root, ADVICE)
    part = PARTS[split]
    base = next((root / name for name in FOLDERS if (root / name / "images" / part).is_dir()), None)
    if base is None:
        raise DataNotFoundError(f"root={str(root)!r}: expected the folder images/{part}. {ADVICE}")
    images = sorted(path for path in (base / "images" / part).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png") and not path.name.startswith("."))
    if not images:
        raise DataNotFoundError(f"{str(base / 'images' / part)!r}: expected .jpg or .png files. {ADVICE}")
    labels = [base / "annotations" / part / f"{path.stem}.png" for path in images]
    if absent := [path for path in labels if not path.is_file()]:
        raise DataNotFoundError(f"{absent[0]}: expected a label map for each image, {len(absent)} of {len(labels)} are absent. {ADVICE}")
    names = tuple(map(str, classes)) if classes is not None else _names(base / NAMES)
    return LabelFolders(base, images, labels, names, split, size, zero_is_ignored)


class LabelFolders(DenseSource):
    """A folder of images and one of label maps of the same names.

    Args:
        folder: path that both are under.
        images, labels: paths, in the same order.
        classes, split: see `Source`.
        size, zero_is_ignored: see `load`.
    """

    def __init__(self, folder, images, labels, classes, split, size=None, zero_is_ignored=True):
        checks.flag("zero_is_ignored", zero_is_ignored)
        shape = None if size is None else (checks.count("size", size), size, 3)
        super().__init__(pathlib.Path(folder).name, split, classes, shape)
        self.folder, self.files, self.label_files, self.size, self.zero_is_ignored = folder, images, labels, size, zero_is_ignored
        self._decoder = Decoder()

    def __len__(self):
        return len(self.files)

    def example(self, i):
        i = int(self._positions([i])[0])
        image = self._decoder.open(read_file(self.files[i]), str(self.files[i]))
        label = read_label_map(self.label_files[i])
        if label.shape != image.size[::-1]:
            raise ValueError(f"{self.label_files[i]}: a label map of {label.shape[1]} x {label.shape[0]} pixels: expected {image.size[0]} x {image.size[1]}, "
                             f"the size of {self.files[i].name}")
        label = class_map(label, len(self.classes), self.zero_is_ignored, self.label_files[i])
        if self.size is not None:
            image, label = (center_crop(resize_short(x, self.size, how), self.size) for x, how in ((image, "bilinear"), (Image.fromarray(label), "nearest")))
        return {"image": as_array(image), "label": np.asarray(label).astype(np.int32)}

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 of class names, options, relative paths and file sizes; the files are not read."""
        paths = [*self.files, *self.label_files]
        sizes = np.array([file_size(path) for path in paths], "<i8")
        return digest(self.classes, self.size, self.zero_is_ignored, [path.relative_to(self.folder).as_posix() for path in paths], sizes)


def read_label_map(path):
    """The gray levels or palette indices (H, W) of a PNG file, as stored. BadImageError names a file that does not decode or is in color."""
    raw = read_file(path)
    try:
        image = Image.open(io.BytesIO(raw), formats=("PNG",))
        check_pixels(image.size, len(raw))
        if image.mode not in ("L", "P", "I", "I;16"):
            raise ValueError(f"its mode is {image.mode}; expected gray levels or a palette")
        return np.asarray(image).astype(np.int32)
    except Exception as error:  # Pillow's plugins raise many types on damaged files
        raise BadImageError(f"{path}: expected a label map as a gray PNG file, but {str(error)[:300] or type(error).__name__}") from error


def class_map(label, classes, zero_is_ignored, path):
    """Labels of a file as classes and `IGNORE`, (H, W) int32; a ValueError names the file and the first label that is neither."""
    highest = classes if zero_is_ignored else classes - 1
    wrong = np.argwhere((label < 0) | ((label > highest) & (label != IGNORE)))
    if len(wrong):
        y, x = wrong[0].tolist()
        raise ValueError(f"{path}: label {label[y, x]} at row {y}, column {x}: expected 0 to {highest}, or {IGNORE}")
    if not zero_is_ignored:
        return label.astype(np.int32)
    return np.where((label == 0) | (label == IGNORE), IGNORE, label - 1).astype(np.int32)


def _names(path):
    """The 150 names of objectInfo150.txt, the first of each line's synonyms; numbers from 1 without the file."""
    if not path.is_file():
        return tuple(str(k + 1) for k in range(CLASSES))
    raw = read_file(path)
    if len(raw) > limits.SPARE:
        raise ValueError(f"{path}: {len(raw)} bytes: expected a table of {CLASSES} classes")
    rows = [line.split("\t") for line in raw.decode("utf-8", errors="replace").splitlines()[1:] if line.strip()]
    names = [row[-1].split(",")[0].strip() for row in rows]
    if len(names) != CLASSES or not all(names):
        raise ValueError(f"{path}: {len(names)} lines after the heading: expected {CLASSES}, with the name last")
    return tuple(names)
