"""CIFAR-10-C and ImageNet-C as released (Hendrycks & Dietterich 2019, arXiv 1903.12261): one corruption at one severity."""
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.data.datasets import folder, imagenet
from vmamba_jax.data.datasets.cifar10 import CLASSES
from vmamba_jax.data.datasets.locate import DataNotFoundError, find_files, root_folder
from vmamba_jax.data.source import Arrays

SEVERITIES = 5
CIFAR10_C_ADVICE = (
    "CIFAR-10-C is ROOT/<corruption>.npy, (50000, 32, 32, 3) uint8, and ROOT/labels.npy, or the same in ROOT/CIFAR-10-C; unpack CIFAR-10-C.tar "
    "('CIFAR-10-C', zenodo.org/records/2535967)."
)
IMAGENET_C_FOLDERS = ("", "ImageNet-C", "imagenet-c", "noise", "blur", "weather", "digital", "extra")
IMAGENET_C_ADVICE = (
    "ImageNet-C is ROOT/<corruption>/<severity>/<WordNet identifier>/*.JPEG, as its tar files unpack ('ImageNet-C', zenodo.org/records/2235448); "
    "ROOT may hold the tar files' folders noise, blur, weather, digital and extra, or ImageNet-C."
)


def load_cifar10_c(split, root=None, *, corruption, severity):
    """One corruption of CIFAR-10-C at one severity, memory-mapped: a fifth of the 50,000 images in the corruption's .npy file.

    Args:
        split: "test"; the set is made from CIFAR-10's test images.
        root: see `data.load`.
        corruption: name of the file, such as "fog".
        severity: 1 to 5.

    Raises:
        DataNotFoundError: absent files. ValueError: damaged files.
    """
    check_arguments("CIFAR-10-C", split, severity)
    paths = find_files(root, ("", "CIFAR-10-C"), [[[f"{corruption}.npy"], ["labels.npy"]]], CIFAR10_C_ADVICE)
    images, labels = map(_read_npy, paths)
    if not images.ndim or len(images) % SEVERITIES or labels.shape != images.shape[:1] or images.shape[1:] != (32, 32, 3):
        raise ValueError(f"{paths[0]}: expected (50000, 32, 32, 3) images with as many labels, got {images.shape} with {labels.shape}")
    if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise ValueError(f"{paths[0]}: expected uint8 images and integer labels, got {images.dtype} and {labels.dtype}")
    n = len(images) // SEVERITIES
    part = slice((severity - 1) * n, severity * n)
    try:
        return Arrays(images[part], labels[part], CLASSES, name="cifar10_c", split=f"{corruption}/{severity}")
    except ValueError as error:
        raise ValueError(f"{paths[1]}: {error}") from error


def load_imagenet_c(split, root=None, *, corruption, severity, workers=None):
    """One corruption of ImageNet-C at one severity, decoded on demand and never resized: the files are JPEG of 224 x 224 pixels.

    The labels are ImageNet's, even if only some of its classes are present.

    Args:
        split: "test"; the set is made from ImageNet's validation images.
        root: see `data.load`.
        corruption: name of the folder, such as "fog".
        severity: 1 to 5.
        workers: decoding threads; None: one per processor.

    Raises:
        DataNotFoundError: an absent folder.
    """
    check_arguments("ImageNet-C", split, severity)
    root = root_folder(root, IMAGENET_C_ADVICE)
    places = [f"{parent}/{corruption}/{severity}".lstrip("/") for parent in IMAGENET_C_FOLDERS]
    place = next((place for place in places if (root / place).is_dir()), None)
    if place is None:
        raise DataNotFoundError(f"root={str(root)!r}: expected a folder {corruption}/{severity}. {IMAGENET_C_ADVICE}")
    source = folder.load("test", root, subdir=place, exif=False, classes=[identifier for identifier, _ in imagenet.classes()], workers=workers)
    source.name, source.split = "imagenet_c", f"{corruption}/{severity}"
    return source


def check_arguments(title, split, severity):
    if split != "test":
        raise ValueError(f"split={split!r}: expected 'test', the only split of {title}")
    if checks.count("severity", severity) > SEVERITIES:
        raise ValueError(f"severity={severity}: expected an integer from 1 to {SEVERITIES}")


def _read_npy(path):
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{path}: expected a whole .npy file, but it is damaged or truncated ({str(error)[:500] or type(error).__name__})") from error
