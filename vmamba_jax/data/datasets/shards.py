"""Labeled images in shards: "webdataset" (tar files), "tfrecord" and "array_record", on disks, in buckets and on web servers."""
import concurrent.futures
import functools
import os
import re

import numpy as np

from vmamba_jax.core.objects import is_url
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.data.datasets.folder import SPLIT_FOLDERS
from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.decoding.images import BadImageError, Decoder
from vmamba_jax.data.shards import index, places
from vmamba_jax.data.shards.formats import FORMATS, ArrayRecord
from vmamba_jax.data.source import MOST_CLASSES, Decoded, digest

AT_ONCE = 16  # shards whose indexes are read at once
PATTERNS = {
    "webdataset": ("{}.tar", "{}-*.tar", "{}_*.tar", "{}/*.tar", "*-{}-*.tar"),
    "tfrecord": ("{}.tfrecord", "{}-*-of-*", "{}-*.tfrecord", "{}/*.tfrecord", "*-{}.tfrecord-*-of-*"),
    "array_record": ("{}.array_record", "{}-*.array_record", "{}/*.array_record", "*-{}.array_record-*-of-*"),
}


def load(form, split, root=None, *, files=None, image_key=None, label_key=None, classes=None, first_label=0, size=None, resize=None,
         interpolation="bicubic", channels=3, exif=True, draft=None, workers=None):
    """Images decoded on demand from sharded files, read in any order, so an epoch is an exact permutation for any number of hosts.

    The first opening reads every shard once and writes its index, see `data.shards.index.of_shard`. In memory are 28 to 36 bytes per record and
    the records' names; a batch reads the bytes of its own images, one request each. ArrayRecord files in buckets are copied to the cache folder.

    Args:
        form: "webdataset", "tfrecord" or "array_record"; records of the latter two are tf.train.Example messages.
        split: "train", "validation" or "test".
        root: folder or URL (gs://, s3://, http(s)://, file://, or a scheme of fsspec); None: $VMAMBA_JAX_DATA.
        files: name or pattern of the shards under root, such as "imagenet-train-{0000..1023}.tar" or "train-*.tar"; None: the split's usual names.
        image_key, label_key: webdataset: extensions of the image and of the label, see `data.shards.formats.WebDataset`; others: features. None: the usual.
        classes: names in label order; "imagenet": its WordNet identifiers; another str: path or URL of a text file with a name per line; None: the
            labels' numbers.
        first_label: the number of the first class in the files.
        size, resize, interpolation, channels, exif, draft: see `decoding.images.Decoder`.
        workers: decoding threads, each with one request at a time; None: one per processor.

    Raises:
        DataNotFoundError: no shards, or some are missing.
        ValueError: a damaged shard, a sample without image or label, or a label that is not in range, by file and record.
    """
    check_split(split)
    decoder = Decoder(size, resize, interpolation, channels, exif, draft)
    keys = {name: value for name, value in (("image_key", image_key), ("label_key", label_key)) if value is not None}
    found = _find(form, split, root, files)
    form = FORMATS[form](**keys)
    shards = [places.Place(path) for path in found]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE, "index") as pool:
        try:
            if isinstance(form, ArrayRecord):
                shards = list(pool.map(index.local_copy, shards))
            indexes = list(pool.map(index.of_shard, shards, [form] * len(shards)))
        except FileNotFoundError as error:
            raise DataNotFoundError(str(error)) from error
    return Shards(shards, indexes, form, _classes(classes), first_label, decoder, split, workers)


webdataset, tfrecord, array_record = (functools.partial(load, form) for form in FORMATS)


class Shards(Decoded):
    """Records of shards in the order of the files, decoded on demand.

    Args:
        shards: list of `places.Place`.
        indexes: the `index.Index` of each.
        form: one of `formats.FORMATS`.
        names: class names; None: the labels' numbers.
        first_label: number of the first class in the files.
        decoder, split, workers: see `Decoded`.
    """

    def __init__(self, shards, indexes, form, names, first_label, decoder, split, workers=None):
        self.shards, self.indexes, self.form = shards, indexes, form
        self._starts = np.cumsum([0, *map(len, indexes)])
        labels = np.concatenate([each.labels for each in indexes]) - first_label
        if not len(labels):
            raise ValueError(f"{shards[0].path}: expected records, got none in {len(shards)} shards")
        bound = MOST_CLASSES if names is None else len(names)
        if (wrong := np.flatnonzero((labels < 0) | (labels >= bound))).size:
            shard, i = self._find(int(wrong[0]))
            raise ValueError(f"{shards[shard].path}:{indexes[shard].name(i)[:200]!a}: expected a label from {first_label} to {first_label + bound - 1}, got "
                             f"{labels[wrong[0]] + first_label}{'; classes=... names more' if names is None else ''}")
        super().__init__(next(name for name, kind in FORMATS.items() if kind is type(form)), split, range(int(labels.max()) + 1) if names is None else names, decoder, workers)
        self._labels = labels.astype(np.int32)
        self._labels.flags.writeable = False

    labels = property(lambda self: self._labels, doc="(n,) int32, read-only.")

    def __len__(self):
        return len(self._labels)

    def _find(self, i):
        """(shard, record in it) of a position."""
        shard = int(np.searchsorted(self._starts, i, "right")) - 1
        return shard, i - int(self._starts[shard])

    def _records(self, indices):
        return [self._find(i) for i in indices.tolist()], self._labels[indices]

    def _encoded(self, record):
        shard, i = record
        place, rows = self.shards[shard], self.indexes[shard]
        name = rows.name(i)
        where = f"{place.path}:{name[:200]!a}"
        try:
            return self.form.read(place, int(rows.offsets[i]), int(rows.sizes[i]), int(rows.labels[i]), name), where
        except (ValueError, RuntimeError) as error:  # not of OSError: an unreachable bucket is no bad image
            raise BadImageError(f"{where}: {error}") from error

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 of the format, class names, labels, the records' names and sizes, and the decoding options; the images are not read."""
        rows = [part for each in self.indexes for part in (each.names, each.sizes.astype("<i8"))]
        return digest(self.form, self.classes, self._labels.astype("<i4"), *rows, self.decoder)


def _find(form, split, root, pattern):
    """Paths of the shards; DataNotFoundError with the patterns that were tried."""
    patterns = [made.format(name) for name in SPLIT_FOLDERS[split] for made in PATTERNS[form]] if pattern is None else [str(pattern)]
    advice = f"A set {form!r} has shards such as ROOT/{' or ROOT/'.join(patterns[:4])}; files=... gives another pattern."
    root = root or os.environ.get("VMAMBA_JAX_DATA")
    if root is None or not is_url(str(root)) or str(root).startswith("file://"):
        root = root_folder(None if root is None else str(root).removeprefix("file://"), advice)
    elif pattern is None and str(root).startswith("http"):
        raise ValueError(f"root={root!r}: expected files=... too, as web servers have no lists")
    for made in patterns:
        if found := [path for path in places.find(root, made, listed=pattern is None) if not path.endswith(index.ENDING)]:
            _check_complete(found)
            return found
    raise DataNotFoundError(f"root={str(root)!r}: expected shards, got none. {advice}")


def _check_complete(found):
    """Raise a DataNotFoundError if names such as x-00003-of-00128 lack some of the 128."""
    parts = [re.search(r"^(.*)-(\d+)-of-(\d+)", path) for path in found]
    counts = {int(part[3]) for part in parts if part}
    if all(parts) and counts and (len(counts) > 1 or len(found) != max(counts)):
        raise DataNotFoundError(f"{found[0]}: expected {' or '.join(map(str, sorted(counts)))} shards, got {len(found)}")


def _classes(given):
    """Class names as a list; None: none given."""
    if given == "imagenet":
        return [name for name, _ in imagenet.classes()]
    if isinstance(given, str):
        content = places.Place(given).whole()
        if content is None:
            raise DataNotFoundError(f"classes={given!r}: expected a text file with a name per line, which does not exist")
        given = content.decode("utf-8").split("\n")
        given = [line.strip() for line in given if line.strip()]
    if given is not None and len(set(map(str, given))) != len(given):
        raise ValueError(f"classes={list(map(str, given))[:5]}: expected each name once")
    return None if given is None else [str(name) for name in given]
