"""MNIST from its IDX files, gzipped or not (LeCun, Cortes and Burges; the format is on "THE MNIST DATABASE of handwritten digits")."""
import gzip
import math
import os

import numpy as np

from vmamba_jax.core import limits
from vmamba_jax.data import splits
from vmamba_jax.data.datasets.locate import check_split, find_files
from vmamba_jax.data.source import Arrays

FOLDERS = ("", "mnist", "MNIST", "MNIST/raw", "mnist/raw", "raw")
ADVICE = (
    "MNIST needs train-images-idx3-ubyte and train-labels-idx1-ubyte (train, validation), t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte (test), each with or without .gz, in ROOT or in ROOT/mnist; they come from 'THE MNIST DATABASE of "
    "handwritten digits', yann.lecun.com/exdb/mnist, or its mirror ossci-datasets.s3.amazonaws.com/mnist."
)


def load(split, root=None, *, validation=0):
    """MNIST: (28, 28, 1) uint8, 60,000 training and 10,000 test images.

    Args:
        split: "train", "validation" or "test".
        root: see `data.load`.
        validation: number of training images held out as split "validation" (stratified, fixed); "train" is the rest.

    Raises:
        DataNotFoundError: absent files. ValueError: damaged files.
    """
    check_split(split)
    prefix = "t10k" if split == "test" else "train"
    kinds = ("images-idx3", "labels-idx1")
    names = [[f"{prefix}-{kind}-ubyte{end}" for end in ("", ".gz")] + [f"{prefix}-{kind.replace('-', '.')}-ubyte"] for kind in kinds]
    images_file, labels_file = find_files(root, FOLDERS, [names], ADVICE)
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise ValueError(f"{images_file}: expected as many images as labels, got {len(images)} images but {labels_file} has {len(labels)} labels")
    if labels.max(initial=0) > 9:
        raise ValueError(f"{labels_file}: expected labels from 0 to 9, got {labels.max()}")
    part = slice(None) if split == "test" else splits.hold_out(labels, validation, split)
    return Arrays(images[part, ..., None], labels[part], range(10), name="mnist", split=split)


def read_idx(path, rank):
    """The uint8 array in an IDX file, gzipped or not.

    Args:
        path: the file. rank: its number of axes.

    Raises:
        ValueError: any other content, with the name of the file.
    """
    with open(path, "rb") as raw:
        length, packed = os.fstat(raw.fileno()).st_size, raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        most = limits.memory(length) // 2 if packed else length
        file = gzip.GzipFile(fileobj=raw) if packed else raw
        header = _read(file, 4 + 4 * rank, path)
        magic = bytes([0, 0, 8, rank])  # two zero bytes, type 8 (unsigned byte), number of axes
        if header[:4] != magic or len(header) != 4 + 4 * rank:
            raise ValueError(f"{path}: expected an IDX header of magic 0x{magic.hex()} and {rank} sizes, got 0x{header.hex()}")
        shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
        size = math.prod(shape)
        body = _read(file, min(size, most) + 1, path)
    if len(body) != size or not size:
        more = "more" if len(body) > min(size, most) else len(body)
        raise ValueError(f"{path}: expected {size} bytes for the shape {shape} in its header, at least 1 and at most {most}, got {more}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read(file, n, path):
    try:
        return file.read(n)
    except Exception as error:  # a damaged gzip file can raise nearly anything
        raise ValueError(f"{path}: expected a whole gzip file, but it is damaged or truncated ({error or type(error).__name__})") from error
