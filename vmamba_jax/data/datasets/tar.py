"""Images in one tar file per split, a folder for each class, read where they lie: <split>.tar with members <class>/**/<image>."""
from vmamba_jax.data.datasets.folder import EXTENSIONS, SPLIT_FOLDERS
from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.decoding.archives import Packed, Tar
from vmamba_jax.data.decoding.images import Decoder

ADVICE = (
    "A set in tar files is ROOT/train.tar, validation.tar (or val, valid) and test.tar, uncompressed, with members <class>/<image>, image "
    f"ending in {', '.join(EXTENSIONS)}. Pass file=... for a file of another name, subdir=... for a folder inside it that holds the classes."
)


def load(split, root=None, *, file=None, subdir="", classes=None, size=None, resize=None, interpolation="bicubic", channels=3, exif=True,
         draft=None, workers=None):
    """Images decoded on demand from an uncompressed tar file, without unpacking it; an index of it is built once, see `archives.Tar`.

    file: its name under root; None: the split's. subdir: folder in it that holds the class folders, such as "imagenette2/train".
    classes: folder names in label order (as for "folder"); None: the sorted folder names.
    size, resize, interpolation, channels, exif, draft: see `data.images.Decoder`. workers: decoding threads; None: one a processor.
    Raises DataNotFoundError for an absent file; ValueError for one that is compressed, damaged or cut short, or without images.
    """
    check_split(split)
    decoder = Decoder(size, resize, interpolation, channels, exif, draft)
    root = root_folder(root, ADVICE)
    choices = [f"{name}.tar" for name in SPLIT_FOLDERS[split]] if file is None else [str(file)]
    path = next((root / name for name in choices if (root / name).is_file()), None)
    if path is None:
        raise DataNotFoundError(f"{str(root)!r} has no file {' or '.join(map(repr, choices))}. {ADVICE}")
    archive, prefix = Tar(path), subdir.strip("/") + "/" if subdir.strip("/") else ""
    found = [(name.removeprefix(prefix), i) for i, name in enumerate(archive.names) if name.startswith(prefix) and is_image(name)]
    if not found:
        raise ValueError(f"{path} holds no images below {subdir or '.'!r}. {ADVICE}")
    if loose := [name for name, _ in found if "/" not in name]:
        raise ValueError(f"{path}: image {prefix + loose[0]!r} is in no class folder. {ADVICE}")
    labels, classes = number([name.split("/")[0] for name, _ in found], classes, path)
    entries = sorted((label, name, i) for label, (name, i) in zip(labels, found, strict=True))
    return Packed(archive, [i for *_, i in entries], [label for label, *_ in entries], classes, decoder, name=path.stem, split=split,
                  workers=workers)


def is_image(name):
    """By its ending; hidden files and what lies in hidden folders are none."""
    return name.lower().endswith(EXTENSIONS) and not any(part.startswith(".") for part in name.split("/"))


def number(names, classes, path):
    """Labels of class names, and the classes in label order: `classes`, or the sorted names for None."""
    classes = sorted(set(names)) if classes is None else [str(name) for name in classes]
    labels = {name: k for k, name in enumerate(classes)}
    if len(labels) != len(classes):
        raise ValueError("classes must not repeat a name")
    if unknown := sorted(set(names) - set(classes)):
        raise ValueError(f"{path} has folders that classes does not list: {', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}")
    return [labels[name] for name in names], classes
