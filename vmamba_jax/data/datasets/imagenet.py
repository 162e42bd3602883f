"""ImageNet-1k (ILSVRC 2012; Russakovsky et al., arXiv 1409.0575): its classes, and its images from the two released tar files."""
import functools
import importlib.resources
import importlib.util
import json
import pathlib

from vmamba_jax.core import checks
from vmamba_jax.data import splits
from vmamba_jax.data.datasets.locate import check_split, find_files
from vmamba_jax.data.datasets.tar import is_image, label_numbers
from vmamba_jax.data.decoding.archives import ArchivedImages, Tar
from vmamba_jax.data.decoding.images import Decoder

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
FOLDERS = ("", "imagenet", "imagenet2012", "ILSVRC2012")
ADVICE = (
    f"ImageNet needs {TRAIN} (train) and {VALIDATION} (validation, test) as released ('Download ImageNet Data', image-net.org), not "
    "unpacked, in ROOT or ROOT/imagenet. For unpacked class folders use the set 'folder', for one prepared by TFDS 'tfds:imagenet2012'."
)


@functools.cache
def classes():
    """1000 pairs (WordNet identifier, names), such as ("n01440764", "tench, Tinca tinca"), in label order, which sorts the identifiers."""
    return tuple(tuple(line.split("\t")) for line in _resource("imagenet_classes.tsv").splitlines())


@functools.cache
def subsets():
    """Ascending labels of the 200 classes of ImageNet-A and of ImageNet-R: {"imagenet_a": (...), "imagenet_r": (...)}, from the authors' programs."""
    return {name: tuple(labels) for name, labels in json.loads(_resource("imagenet_subsets.json")).items()}


def labels_of(names):
    """Labels, as integers, of some classes: WordNet identifiers ("n01440764") or label numbers ("0"), all of one kind.

    Raises:
        ValueError: names of no class; the message lists some of them.
    """
    names = tuple(map(str, names))
    known = {name: k for k, (name, _) in enumerate(classes())}
    if all(name.isdecimal() for name in names):
        known = {str(k): k for k in range(len(known))}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"classes={', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}: expected WordNet identifiers of ImageNet-1k, such as "
                         "n01440764, or label numbers from 0 to 999")
    return tuple(known[name] for name in names)


def load(split, root=None, *, validation=0, labels=None, size=None, resize=None, interpolation="bicubic", exif=True, draft=None,
         workers=None):
    """ImageNet-1k from its released tar files, which stay packed; subsets of the archives are accepted.

    An index of each archive is built once, see `decoding.archives.Tar`.

    Args:
        split: "train", "validation" or "test"; "test" is the released validation set (the labels of the released test set are not published).
        root: see `data.load`.
        validation: number of training images held out as split "validation" (stratified, fixed), "train" is the rest; 0: split "validation"
            is the released validation set too.
        labels: text file with the WordNet identifier of each released validation image, one per line, in the order of their numbers; None:
            the list in tensorflow-datasets.
        size, resize, interpolation, exif, draft: see `decoding.images.Decoder`.
        workers: decoding threads; None: one per processor.

    Raises:
        DataNotFoundError: absent files.
        ValueError: a damaged or truncated file, or an unknown class.
    """
    check_split(split)
    decoder = Decoder(size, resize, interpolation, exif=exif, draft=draft)
    checks.count("validation", validation, 0)
    training = split == "train" or (split == "validation" and validation)
    path, = find_files(root, FOLDERS, [[[TRAIN if training else VALIDATION]]], ADVICE)
    archive = Tar(path, nested=training)
    members = sorted((i for i, name in enumerate(archive.names) if is_image(name)), key=lambda i: archive.names[i])
    if not members:
        raise ValueError(f"{path}: expected images, got none. {ADVICE}")
    identifiers = [identifier for identifier, _ in classes()]
    if training:
        found, _ = label_numbers([archive.names[i].split("/")[0] for i in members], identifiers, path)
        part = splits.hold_out(found, validation, split)
        members, found = [members[i] for i in part], [found[i] for i in part]
    else:
        every = _validation_labels(labels)
        found, _ = label_numbers([every[_number(archive.names[i], len(every), path) - 1] for i in members], identifiers, labels)
    return ArchivedImages(archive, members, found, identifiers, decoder, name="imagenet", split=split, workers=workers)


def _resource(name):
    return importlib.resources.files("vmamba_jax.data.datasets").joinpath(name).read_text(encoding="utf-8")


def _validation_labels(path):
    if path is None:
        package = importlib.util.find_spec("tensorflow_datasets").submodule_search_locations[0]
        path = pathlib.Path(package, "datasets", "imagenet2012", "validation_labels.txt")
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, but {error}") from error


def _number(name, count, path):
    """The number in "ILSVRC2012_val_00000293.JPEG"."""
    digits = pathlib.PurePosixPath(name).stem.rpartition("_")[2]
    if not digits.isdecimal() or len(digits) > 20 or not 1 <= int(digits) <= count:
        raise ValueError(f"{path}: expected members such as ILSVRC2012_val_00000293.JPEG, numbered 1 to {count}, got {name[:100]!r}")
    return int(digits)
