"""Images in one tar file per split with a folder per class, <split>.tar with members <class>/**/<image>, read without unpacking."""
from vmamba_jax.data.datasets.folder import EXTENSIONS, SPLIT_FOLDERS
from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.decoding.archives import ArchivedImages, Tar
from vmamba_jax.data.decoding.images import Decoder

ADVICE = (
    "A set in tar files is ROOT/train.tar, validation.tar (or val, valid) and test.tar, uncompressed, with members <class>/<image>, image "
    f"ending in {', '.join(EXTENSIONS)}. Pass file=... for a file of another name, subdir=... for a folder inside it that holds the classes."
)


def load(split, root=None, *, file=None, subdir="", classes=None, size=None, resize=None, interpolation="bicubic", channels=3, exif=True,
         draft=None, workers=None):
    """Images decoded on demand from an uncompressed tar file without unpacking it; an index is built once, see `decoding.archives.Tar`.

    Args:
        split: "train", "validation" or "test".
        root: see `data.load`.
        file: name of the file under root; None: the split's.
        subdir: folder in the archive that has the class folders, such as "imagenette2/train".
        classes: folder names in label order (as for "folder"); None: the sorted folder names.
        size, resize, interpolation, channels, exif, draft: see `decoding.images.Decoder`.
        workers: decoding threads; None: one per processor.

    Raises:
        DataNotFoundError: an absent file.
        ValueError: a file that is compressed, damaged, truncated or without images.
    """
    check_split(split)
    decoder = Decoder(size, resize, interpolation, channels, exif, draft)
    root = root_folder(root, ADVICE)
    choices = [f"{name}.tar" for name in SPLIT_FOLDERS[split]] if file is None else [str(file)]
    path = next((root / name for name in choices if (root / name).is_file()), None)
    if path is None:
        raise DataNotFoundError(f"root={str(root)!r}: expected a file {' or '.join(map(repr, choices))}. {ADVICE}")
    archive, prefix = Tar(path), subdir.strip("/") + "/" if subdir.strip("/") else ""
    found = [(name.removeprefix(prefix), i) for i, name in enumerate(archive.names) if name.startswith(prefix) and is_image(name)]
    if not found:
        raise ValueError(f"{path}: expected images below subdir={subdir!r}, got none. {ADVICE}")
    if loose := [name for name, _ in found if "/" not in name]:
        raise ValueError(f"{path}: expected every image in a class folder, got {prefix + loose[0]!r}. {ADVICE}")
    labels, classes = label_numbers([name.split("/")[0] for name, _ in found], classes, path)
    entries = sorted((label, name, i) for label, (name, i) in zip(labels, found, strict=True))
    return ArchivedImages(archive, [i for *_, i in entries], [label for label, *_ in entries], classes, decoder, name=path.stem, split=split,
                          workers=workers)


def is_image(name):
    """Whether a member is an image, by its ending; files that are hidden or in hidden folders are not."""
    return name.lower().endswith(EXTENSIONS) and not any(part.startswith(".") for part in name.split("/"))


def label_numbers(names, classes, path):
    """(labels of class names, classes in label order).

    Args:
        names: one class name per example.
        classes: class names in label order; None: the sorted names.
        path: of the file, for errors.
    """
    classes = sorted(set(names)) if classes is None else [str(name) for name in classes]
    labels = {name: k for k, name in enumerate(classes)}
    if len(labels) != len(classes):
        raise ValueError(f"classes={classes}: expected each name once")
    if unknown := sorted(set(names) - set(classes)):
        raise ValueError(f"classes: expected the names of all folders of {path}, missing {', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}")
    return [labels[name] for name in names], classes
