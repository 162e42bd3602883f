"""The index of a shard: offset, size, label and name of every record, made by one scan and kept in a file beside the shard or in the cache folder."""
import contextlib
import dataclasses
import functools
import io
import json
import pathlib

import numpy as np

from vmamba_jax.core import files, zip_files
from vmamba_jax.core.objects import StoreError
from vmamba_jax.data.decoding.archives import cache_place
from vmamba_jax.data.shards.formats import ArrayRecord, WebDataset

VERSION = 1
ENDING = ".index.npz"
COPIED = 8 << 20  # bytes of one request while a file is copied to the cache folder


@dataclasses.dataclass(frozen=True)
class Index:
    """Arrays of n records.

    Attributes:
        offsets, sizes: (n,) int64, bytes (ArrayRecord: offsets are record numbers).
        labels: (n,) int64 as in the file.
        names: uint8, the records' names in UTF-8 with zero bytes between them.
    """
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    names: np.ndarray

    def __len__(self):
        return len(self.offsets)

    @functools.cached_property
    def _ends(self):
        return np.append(np.flatnonzero(self.names == 0), len(self.names))

    def name(self, i):
        return self.names[self._ends[i - 1] + 1 if i else 0:self._ends[i]].tobytes().decode()


def of_shard(place, form):
    """The index of a shard: read if there is one for its size and format, else made by one scan of the shard and written.

    The file is <shard>.index.npz beside the shard or, where that cannot be written, in the cache folder; the index of a remote shard is copied
    there. A local one that is older than its shard is not used.

    Args:
        place: a `places.Place`.
        form: one of `formats.FORMATS`, with its keys.

    Raises:
        FileNotFoundError: an absent shard.
        ValueError: a damaged shard, by name and record.
    """
    size, cache = place.size(), cache_place(place.path, ENDING)
    key = np.frombuffer(json.dumps([VERSION, type(form).__name__, form.image_key, form.label_key, size]).encode(), np.uint8)
    if place.remote:
        beside = type(place)(place.path + ENDING)
        if (found := _read(cache, key, size, form)) is not None:
            return found
        if (shipped := beside.whole()) is not None:
            _write(cache, shipped)
            if (found := _read(cache, key, size, form)) is not None:
                return found
        made = _scan(place, form, size)
        content = _packed(made, key)
        with contextlib.suppress(StoreError, OSError, NotImplementedError):  # read-only: only the cache has it
            beside.write(content)
        _write(cache, content)
        return made
    beside, written = pathlib.Path(place.path + ENDING), pathlib.Path(place.path).stat().st_mtime_ns
    for path in (beside, cache):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime_ns >= written and (found := _read(path, key, size, form)) is not None:
                return found
    made = _scan(place, form, size)
    content = _packed(made, key)
    _write(beside, content) or _write(cache, content)
    return made


def local_copy(place):
    """A place on this machine with the content of a remote one, copied once to the cache folder; a change of the remote size copies it again."""
    from vmamba_jax.data.shards.places import Place
    if not place.remote:
        return place
    path, size = cache_place(place.path, ""), place.size()
    if not path.is_file() or path.stat().st_size != size:
        with files.atomic(path) as draft, open(draft, "wb") as file:
            file.writelines(place.read(at, min(COPIED, size - at)) for at in range(0, size, COPIED))
    return Place(path)


def _scan(place, form, size):
    rows = list(form.scan(place))
    offsets, sizes, labels = (np.array([row[k] for row in rows], np.int64) for k in range(3))
    made = Index(offsets, sizes, labels, np.frombuffer("\0".join(row[3] for row in rows).encode(), np.uint8))
    if not _sound(made, size, form):
        raise ValueError(f"{place.path}: expected records inside the file; it is damaged or truncated")
    return made


def _packed(index, key):
    out = io.BytesIO()
    np.savez(out, key=key, **{field.name: getattr(index, field.name) for field in dataclasses.fields(index)})
    return out.getvalue()


def _write(path, content):
    """Whether an index could be written."""
    try:
        with files.atomic(path) as draft:
            draft.write_bytes(content)
        return True
    except OSError:
        return False


def _read(path, key, size, form):
    """The index in a file; None if it is absent, damaged, or of another shard or format."""
    try:
        found = zip_files.read_npz(path, ("key", "offsets", "sizes", "labels", "names"))
        index = Index(**{name: found[name] for name in ("offsets", "sizes", "labels", "names")})
        if np.array_equal(found["key"], key) and index.names.dtype == np.uint8 and _sound(index, size, form):
            index.names.tobytes().decode()
            return index
    except (OSError, ValueError):
        pass
    return None


def _sound(index, size, form):
    """Whether the arrays fit each other and a shard of `size` bytes."""
    n, (offsets, sizes) = len(index.offsets), (index.offsets, index.sizes)
    if any(x.dtype != np.int64 or x.shape != (n,) for x in (offsets, sizes, index.labels)) or int((index.names == 0).sum()) != max(n - 1, 0):
        return False
    if isinstance(form, ArrayRecord):
        return bool(((offsets == np.arange(n)) & (sizes >= 0)).all())
    head = 512 if isinstance(form, WebDataset) else 12
    return bool(((offsets >= head) & (sizes >= 0) & (offsets <= size - sizes)).all())
