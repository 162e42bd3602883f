"""ImageNet-C as released: JPEG files of 224 pixels, ROOT/<corruption>/<severity>/<WordNet identifier>/<image> (Hendrycks & Dietterich 2019)."""
from vmamba_jax.core import checks
from vmamba_jax.data.datasets import folder, imagenet
from vmamba_jax.data.datasets.locate import DataNotFoundError, root_folder

FOLDERS = ("", "ImageNet-C", "imagenet-c", "noise", "blur", "weather", "digital", "extra")
ADVICE = (
    "ImageNet-C is ROOT/<corruption>/<severity>/<WordNet identifier>/*.JPEG, as its tar files unpack ('ImageNet-C', zenodo.org/records/2235448); "
    "ROOT may hold the tar files' folders noise, blur, weather, digital and extra, or ImageNet-C."
)


def load(split, root=None, *, corruption, severity, workers=None):
    """One corruption at one severity, decoded on demand and never resized: the released files have their size.

    split: "test", as made from ImageNet's validation images. corruption: the folder's name, "fog". severity: 1 to 5.
    workers: decoding threads; None: one for each processor.
    Labels are ImageNet's, also where only some of its classes are there. Raises DataNotFoundError for an absent folder.
    """
    if split != "test":
        raise ValueError(f"split must be 'test', got {split!r}: ImageNet-C has no other")
    checks.count("severity", severity)
    root = root_folder(root, ADVICE)
    place = next((f"{name}/{corruption}/{severity}".lstrip("/") for name in FOLDERS if (root / name / str(corruption) / str(severity)).is_dir()), None)
    if place is None:
        raise DataNotFoundError(f"{str(root)!r} has no folder {corruption}/{severity}. {ADVICE}")
    source = folder.load("test", root, subdir=place, exif=False, classes=[identifier for identifier, _ in imagenet.classes()], workers=workers)
    source.name, source.split = "imagenet_c", f"{corruption}/{severity}"
    return source
