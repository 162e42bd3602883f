"""CIFAR-10-C as released: one .npy file a corruption, 10,000 images for each severity in turn (Hendrycks & Dietterich 2019)."""
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.data.datasets.cifar10 import CLASSES
from vmamba_jax.data.datasets.locate import find_files
from vmamba_jax.data.source import Arrays

SEVERITIES = 5
ADVICE = (
    "CIFAR-10-C is ROOT/<corruption>.npy, (50000, 32, 32, 3) uint8, and ROOT/labels.npy, or the same in ROOT/CIFAR-10-C; unpack CIFAR-10-C.tar "
    "('CIFAR-10-C', zenodo.org/records/2535967)."
)


def load(split, root=None, *, corruption, severity):
    """One corruption at one severity, mapped into memory.

    split: "test", as made from CIFAR-10's test images. corruption: the file's name, "fog". severity: 1 to 5, each a fifth of the file.
    Raises DataNotFoundError for absent files, ValueError for damaged ones.
    """
    if split != "test":
        raise ValueError(f"split must be 'test', got {split!r}: CIFAR-10-C has no other")
    if checks.count("severity", severity) > SEVERITIES:
        raise ValueError(f"severity must be 1 to {SEVERITIES}, got {severity}")
    paths = find_files(root, ("", "CIFAR-10-C"), [[[f"{corruption}.npy"], ["labels.npy"]]], ADVICE)
    images, labels = map(_array, paths)
    if len(images) % SEVERITIES or labels.shape != (len(images),) or images.shape[1:] != (32, 32, 3):
        raise ValueError(f"{paths[0]}: expected (50000, 32, 32, 3) images with as many labels, got {images.shape} with {labels.shape}")
    n = len(images) // SEVERITIES
    part = slice((severity - 1) * n, severity * n)
    return Arrays(images[part], labels[part], CLASSES, name="cifar10_c", split=f"{corruption}/{severity}")


def _array(path):
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected a whole .npy file, but it is damaged or cut short ({error})") from error
