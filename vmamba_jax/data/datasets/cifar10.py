"""CIFAR-10 from its binary or Python version (Krizhevsky 2009; www.cs.toronto.edu/~kriz/cifar.html)."""
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.pickled_arrays import read_arrays
from vmamba_jax.data import splits
from vmamba_jax.data.datasets.locate import check_split, find_files
from vmamba_jax.data.source import Arrays

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDERS = tuple(parent + folder for parent in ("", "cifar10/") for folder in ("", "cifar-10-batches-bin", "cifar-10-batches-py"))
PIXELS = 3 * 32 * 32
ADVICE = (
    "CIFAR-10 needs data_batch_1.bin to data_batch_5.bin (train, validation) and test_batch.bin (test), or the python version's files of "
    "the same names without .bin, in ROOT, ROOT/cifar10, ROOT/cifar-10-batches-bin or ROOT/cifar-10-batches-py; unpack "
    "cifar-10-binary.tar.gz or cifar-10-python.tar.gz from 'The CIFAR-10 dataset', www.cs.toronto.edu/~kriz/cifar.html."
)


def load(split, root=None, *, validation=0, records=None):
    """CIFAR-10: (32, 32, 3) uint8, 50,000 training and 10,000 test images; prefers the binary version if both are present.

    Args:
        split: "train", "validation" or "test".
        root: see `data.load`.
        validation: number of training images held out as split "validation" (stratified, fixed); "train" is the rest.
        records: images that every file must have (10,000 in the release); None: accept truncated files with any equal number of images.

    Raises:
        DataNotFoundError: absent files. ValueError: damaged files.
    """
    check_split(split)
    if records is not None:
        checks.count("records", records)
    stems = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    paths = find_files(root, FOLDERS, [[[stem + end] for stem in stems] for end in (".bin", "")], ADVICE)
    parts = []
    for path in paths:
        parts.append((_read_binary if path.suffix == ".bin" else _read_python)(path, records))
        records = len(parts[0][1])  # detects a file that is truncated between two records
    pixels, labels = zip(*parts, strict=True)
    labels = np.concatenate(labels).astype(np.int32)
    part = slice(None) if split == "test" else splits.hold_out(labels, validation, split)
    planes = np.concatenate(pixels)[part].reshape(-1, 3, 32, 32)  # all red, then all green, then all blue
    return Arrays(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels[part], CLASSES, name="cifar10", split=split)


def _read_binary(path, records):
    raw, row = np.fromfile(path, np.uint8), 1 + PIXELS
    if raw.size == 0 or raw.size % row or (records is not None and raw.size != records * row):
        expected = f"{records} images" if records is not None else "whole images"
        raise ValueError(f"{path}: expected {expected} of {row} bytes, got {raw.size} bytes ({raw.size / row:.2f} images)")
    raw = raw.reshape(-1, row)
    return raw[:, 1:], _check_labels(path, raw[:, 0])


def _read_python(path, records):
    content = read_arrays(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dict with b'data' and b'labels', got {type(content).__name__}")
    content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    data, labels = content.get("data"), content.get("labels")
    n = records if records is not None else len(data) if isinstance(data, np.ndarray) and data.ndim else 0
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (n, PIXELS) or n == 0:
        got = f"shape {data.shape} of {data.dtype}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{path}: expected b'data' of shape ({records or 'n'}, {PIXELS}) uint8, got {got}")
    if not isinstance(labels, list) or len(labels) != n or not all(isinstance(label, int) for label in labels):
        raise ValueError(f"{path}: expected b'labels' to be a list of {n} ints")
    return data, _check_labels(path, np.asarray(labels))


def _check_labels(path, labels):
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"{path}: expected labels from 0 to 9, got {labels.min()} to {labels.max()}")
    return labels
