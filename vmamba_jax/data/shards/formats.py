"""The records of a shard by format: a scan in order, which finds offsets and labels once, and the read of one record, which verifies it.

Tar and TFRecord files have no index of their own, so a scan reads the file once; ArrayRecord files have one, and a scan reads them for the labels.
"""
import dataclasses
import json
import struct
import threading

from vmamba_jax.core import crc32c, limits
from vmamba_jax.data.datasets.folder import EXTENSIONS
from vmamba_jax.data.decoding import archives
from vmamba_jax.data.shards import examples

MOST_LABEL = 1 << 20  # bytes of a file with a label
BLOCK = 512  # of a tar file
LABELS = 1 << 40  # bound of the labels in files, which `classes` bounds further


@dataclasses.dataclass(frozen=True)
class WebDataset:
    """Samples of a tar file: members "<key>.<extension>" in a row with one key are one sample (the key ends at the first dot of the file's name).

    Attributes:
        image_key: extension of the image; None: any image's.
        label_key: extension of the label's file, text of an integer; "json:label" is the field "label" of the file of extension "json".
    """
    image_key: str | None = None
    label_key: str = "cls"

    def scan(self, place):
        """(offset of the image's bytes, size, label, member's name) of every sample; ValueError with the file's and the member's name."""
        extension, _, field = self.label_key.partition(":")
        with place.open() as file:
            key, image, label, seen = None, None, None, set()
            for name, offset, size in archives.members(file, place.path, False):
                folder, slash, base = name.rpartition("/")
                stem, _, ending = base.partition(".")
                if not stem:
                    continue  # a hidden file
                if folder + slash + stem != key:
                    yield from self._whole(place, key, image, label)
                    key, image, label = folder + slash + stem, None, None
                    if key in seen:
                        raise ValueError(f"{place.path}:{name[:200]!a}: expected the members of a sample in a row, and each key once")
                    seen.add(key)
                ending = ending.lower()
                if ending == extension:
                    file.seek(offset)
                    label = _number(file.read(min(size, MOST_LABEL)), field, f"{place.path}:{name[:200]!a}")
                elif ending == self.image_key or (self.image_key is None and f".{ending}" in EXTENSIONS):
                    if image:
                        raise ValueError(f"{place.path}:{name[:200]!a}: expected one image in a sample; image_key=... selects it")
                    image = offset, size, name
            yield from self._whole(place, key, image, label)

    def _whole(self, place, key, image, label):
        if key is None or (image is None and label is None):
            return
        if image is None or label is None:
            what = f"an image{f' of extension {self.image_key!r}' if self.image_key else ''}" if image is None else f"a label {self.label_key!r}"
            raise ValueError(f"{place.path}:{key[:200]!a}: expected {what} in the sample")
        yield image[0], image[1], label, image[2]

    def read(self, place, offset, size, label, name):
        """The image's bytes, after a comparison of the header before them with the index."""
        content = place.read(offset - BLOCK, BLOCK + size)
        header = content[:BLOCK]
        try:
            stated, total = int(header[124:136].strip(b"\0 ") or b"0", 8), int(header[148:156].split(b"\0")[0].strip() or b"0", 8)
        except ValueError:
            stated = total = -1
        found = header[:100].split(b"\0")[0].decode("utf-8", "replace")
        same = len(found) >= 100 or not name.isascii() or name.endswith(found.removeprefix("./"))
        if len(content) != BLOCK + size or stated != size or total != sum(header[:148]) + sum(header[156:]) + 256 or not same:
            raise ValueError(f"expected a member of {size} bytes at {offset}, as the index says; the shard was changed or truncated")
        return content[BLOCK:]


@dataclasses.dataclass(frozen=True)
class TFRecord:
    """Records of a TFRecord file, each a tf.train.Example with an encoded image and an integer label; checksums are verified at every read.

    Attributes:
        image_key, label_key: names of the features.
    """
    image_key: str = "image/encoded"
    label_key: str = "image/class/label"

    def scan(self, place):
        size, at, i = place.size(), 0, 0
        with place.open() as file:
            while at < size:
                where = f"{place.path}: record {i} at byte {at}"
                head = file.read(12)
                if len(head) < 12 or crc32c.masked(head[:8]) != struct.unpack("<I", head[8:])[0]:
                    raise ValueError(f"{where}: expected a record's length and its checksum; the file is damaged, truncated or compressed")
                n, = struct.unpack("<Q", head[:8])
                if at + n + 16 > size:
                    raise ValueError(f"{where}: expected {n + 16} bytes, got {size - at}; the file is truncated")
                content = file.read(n + 4)
                _, label = self._example(content, n, where)
                yield at + 12, n, label, f"record {i}"
                at, i = at + n + 16, i + 1

    def read(self, place, offset, size, label, name):
        content = place.read(offset, size + 4)
        image, found = self._example(content, size, name)
        if found != label:
            raise ValueError(f"expected label {label}, as the index says, got {found}; the shard was changed")
        return image

    def _example(self, content, n, where):
        if len(content) != n + 4 or crc32c.masked(content[:n]) != struct.unpack("<I", content[n:])[0]:
            raise ValueError(f"{where}: expected a record with the checksum stored after it; it is damaged or truncated")
        return example(content[:n], self.image_key, self.label_key, where)


@dataclasses.dataclass(frozen=True)
class ArrayRecord:
    """Records of an ArrayRecord file, each a tf.train.Example as of `TFRecord`; files are local. Offsets are the records' numbers.

    Attributes:
        image_key, label_key: names of the features.
    """
    image_key: str = "image"
    label_key: str = "label"

    def scan(self, place):
        reader = _open(place)
        for i in range(reader.num_records()):
            try:
                content, = reader.read([i])
            except Exception as error:  # RuntimeError and ValueError of its C++ code
                raise ValueError(f"{place.path}: record {i}: expected a whole record, but {_first_line(error)}") from error
            _, label = example(content, self.image_key, self.label_key, f"{place.path}: record {i}")
            yield i, len(content), label, f"record {i}"
        reader.close()

    def read(self, place, offset, size, label, name):
        content, = _reader(place).read([offset])
        image, found = example(content, self.image_key, self.label_key, name)
        if len(content) != size or found != label:
            raise ValueError(f"expected {size} bytes and label {label}, as the index says, got {len(content)} and {found}; the shard was changed")
        return image


FORMATS = {"webdataset": WebDataset, "tfrecord": TFRecord, "array_record": ArrayRecord}


def example(content, image_key, label_key, where):
    """(the encoded image, the label) of a serialized tf.train.Example."""
    try:
        found = examples.parse(content, (image_key, label_key))
    except ValueError as error:
        raise ValueError(f"{where}: expected a tf.train.Example, but {error}") from error
    image, label = found.get(image_key, ()), found.get(label_key, ())
    if len(image) != 1 or not isinstance(image[0], bytes):
        raise ValueError(f"{where}: expected one encoded image as feature {image_key!r}; image_key=... names another")
    if len(label) != 1 or not isinstance(label[0], int) or not 0 <= label[0] < LABELS:
        raise ValueError(f"{where}: expected one integer from 0 as feature {label_key!r}, got {list(label)[:3]!r:.80}; label_key=... names another")
    return image[0], label[0]


_readers = threading.local()  # a reader per thread and file: one serves one thread at a time
MOST_READERS = 64  # open files of one thread


def _reader(place):
    readers = _readers.__dict__.setdefault("by_path", {})
    if place.path not in readers:
        while len(readers) >= MOST_READERS:
            readers.pop(next(iter(readers))).close()
        readers[place.path] = _open(place)
    return readers[place.path]


def _open(place):
    from array_record.python import array_record_module  # comes with Grain; slow to import
    try:
        reader = array_record_module.ArrayRecordReader(place.path)
        sound, n = reader.ok(), reader.num_records()
        if not sound:
            reader.read([0])  # raises the cause
    except Exception as error:
        raise ValueError(f"{place.path}: expected a whole ArrayRecord file, but {_first_line(error)}") from error
    if not sound or not n:
        raise ValueError(f"{place.path}: expected a whole ArrayRecord file, but it is truncated or empty")
    return reader


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _number(content, field, where):
    """The label in the content of a label's file."""
    try:
        if field:
            value = limits.parse_json(content, where)[field]
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError
        else:
            value = int(content.decode("ascii").strip())
        if not 0 <= value < LABELS:
            raise ValueError
    except (ValueError, TypeError, KeyError, json.JSONDecodeError):
        raise ValueError(f"{where}: expected an integer from 0{f' as {field!r}' if field else ''}, got {content[:40]!r}") from None
    return value
