"""Members of tar files, zip files and folders, read in any order without unpacking."""
import abc
import functools
import hashlib
import os
import pathlib
import tarfile
import weakref

import numpy as np

from vmamba_jax.core import files, zip_files
from vmamba_jax.data.decoding.images import BadImageError, file_size, read_file
from vmamba_jax.data.source import Decoded, digest

INDEX_VERSION = 2
END = 1024  # a tar file ends with two blocks of zeros
SPARE_NAMES = 4 << 20  # bytes that the names in a tar file may take together besides the file's size: one pax header can name all members
MOST_PAX = 100  # global pax headers, which tarfile copies for every member


class NamedError(ValueError):
    """A ValueError whose message has the file's name."""


class Archive(abc.ABC):
    """Regular files in a container; `read(i)` returns the bytes of member i.

    Several threads may read at once; a pickled archive reopens its file.

    Attributes:
        path: of the container.
        names: list of str, with "/" between folders.
        sizes: (n,) int64, bytes.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    @abc.abstractmethod
    def read(self, i): ...

    def text(self, name):
        """The content of the text file `name`; None: no such member."""
        if name not in self.names:
            return None
        try:
            return self.read(self.names.index(name)).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}:{name}: expected text in UTF-8, but {error}") from error

    def __len__(self):
        return len(self.names)


class Directory(Archive):
    """The files below a folder, except hidden ones."""

    def __init__(self, path):
        super().__init__(path)
        self.names = visible_files(path)

    @functools.cached_property
    def sizes(self):
        return np.array([file_size(self.path / name) for name in self.names], np.int64)

    def read(self, i):
        return read_file(self.path / self.names[i])


class Zip(Archive):
    """The members of a zip file; ValueError with its name if it is damaged or truncated."""

    def __init__(self, path):
        super().__init__(path)
        members = [member for member in self._zip.infolist() if not member.filename.endswith("/")]
        self.names = [member.filename for member in members]
        self.sizes = np.array([member.file_size for member in members], np.int64)

    @functools.cached_property
    def _zip(self):
        file = open(self.path, "rb")
        try:
            archive = zip_files.open_zip(file)
        except Exception as error:  # a damaged file can raise nearly anything
            file.close()
            raise ValueError(f"{self.path}: expected a whole zip file, but it is damaged or truncated ({error or type(error).__name__})") from error
        weakref.finalize(self, file.close)
        return archive

    def read(self, i):
        try:
            return zip_files.read_member(self._zip, self._zip.getinfo(self.names[i]), file_size(self.path))
        except Exception as error:
            raise BadImageError(f"{self.path}:{self.names[i]}: expected a whole member, but {error or type(error).__name__}") from error

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_zip"}


class Tar(Archive):
    """The members of an uncompressed tar file.

    The first opening reads the file once and writes the position of each member to an index: <file>.index.npz beside it or, if that folder is
    read-only, in $XDG_CACHE_HOME/vmamba_jax (~/.cache). A change of the file's size or modification time rebuilds the index.

    Args:
        path: the file.
        nested: list the members of the tar files inside it, named "<inner file's stem>/<member>".

    Raises:
        ValueError: a file that is compressed, damaged or truncated, by name.
    """

    def __init__(self, path, nested=False):
        super().__init__(path)
        stat = self.path.stat()
        key = np.array([INDEX_VERSION, stat.st_size, stat.st_mtime_ns, nested], np.int64)
        names, self._offsets, self.sizes = _load_index(self.path, key) or _build_index(self.path, key, nested)
        self.names = names.split("\0") if names else []

    @functools.cached_property
    def _file(self):
        file = open(self.path, "rb", buffering=0)
        weakref.finalize(self, file.close)
        return file

    def read(self, i):
        raw = os.pread(self._file.fileno(), self.sizes[i], self._offsets[i])
        if len(raw) != self.sizes[i]:
            raise ValueError(f"{self.path}:{self.names[i]}: expected {self.sizes[i]} bytes at {self._offsets[i]}, got {len(raw)}; "
                             "the file has changed since it was opened")
        return raw

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_file"}


class ArchivedImages(Decoded):
    """Images decoded on demand from members of an archive.

    Args:
        archive: an `Archive`.
        members: (n,) positions in it.
        labels: (n,) integers.
        classes, decoder, name, split, workers: see `Decoded`.
    """

    def __init__(self, archive, members, labels, classes, decoder, *, name, split, workers=None):
        super().__init__(name, split, classes, decoder, workers)
        self.archive, self.members = archive, np.asarray(members, np.int64)
        self._labels = np.array(labels, np.int32)
        self._labels.flags.writeable = False

    labels = property(lambda self: self._labels, doc="(n,) int32, read-only.")
    files = property(lambda self: [self.archive.names[i] for i in self.members.tolist()], doc="Names of the members.")

    def __len__(self):
        return len(self.members)

    def _records(self, indices):
        return self.members[indices].tolist(), self._labels[indices]

    def _encoded(self, i):
        return self.archive.read(i), f"{self.archive.path}:{self.archive.names[i]}"

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 of class names, labels, the members' names and sizes, and the decoding options; the images are not read."""
        names = [self.archive.names[i] for i in self.members.tolist()]
        return digest(self.classes, self._labels.astype("<i4"), names, self.archive.sizes[self.members].astype("<i8"), self.decoder)


def _index_places(path):
    """Paths where the index of an archive may be, in order of preference."""
    return path.with_name(path.name + ".index.npz"), cache_place(str(path.resolve()), ".index.npz")


def cache_place(path, ending):
    """Path in the cache folder ($XDG_CACHE_HOME/vmamba_jax or ~/.cache/vmamba_jax) for what is made from one file, given by its path or URL."""
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vmamba_jax"
    separate = hashlib.sha256(path.encode()).hexdigest()[:16]  # separates files of one name
    return folder / f"{path.rsplit('/', 1)[-1]}.{separate}{ending}"


def _load_index(path, key):
    for place in _index_places(path):
        try:
            index = zip_files.read_npz(place, ("key", "names", "offsets", "sizes"))
            names, offsets, sizes = index["names"], index["offsets"], index["sizes"]
            n = int((names == 0).sum()) + bool(names.size)
            if np.array_equal(index["key"], key) and names.dtype == np.uint8 and offsets.shape == sizes.shape == (n,) and _inside(offsets, sizes, key[1]):
                return names.tobytes().decode(), offsets, sizes
        except (OSError, ValueError):
            continue  # absent or damaged: rebuilt
    return None


def _inside(offsets, sizes, end):
    """Whether all members lie in a file of `end` bytes."""
    return offsets.dtype == sizes.dtype == np.int64 and bool(((offsets >= 0) & (sizes >= 0) & (offsets <= end - sizes)).all())


def _build_index(path, key, nested):
    with open(path, "rb") as file:
        found, letters = [], 0
        for member in members(file, path, nested):
            found.append(member)
            letters += len(member[0])
            if letters > SPARE_NAMES + key[1]:
                raise ValueError(f"{path}: expected names of at most {SPARE_NAMES + key[1]} letters together in a tar file of this size")
    names = np.frombuffer("\0".join(name for name, _, _ in found).encode(), np.uint8)
    offsets, sizes = (np.array([row[k] for row in found], np.int64) for k in (1, 2))
    if not _inside(offsets, sizes, key[1]):
        raise ValueError(f"{path}: expected members inside the file; it is damaged or truncated")
    for place in _index_places(path):
        try:
            with files.atomic(place) as draft, open(draft, "wb") as file:
                np.savez(file, key=key, names=names, offsets=offsets, sizes=sizes)
            break
        except OSError:
            continue  # a read-only folder; without any other, the next opening rebuilds the index
    return names.tobytes().decode(), offsets, sizes


def members(file, path, nested, where=""):
    """(name, offset of its bytes in `file`, size) of every regular file in a tar file."""
    try:
        archive = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape")
        while (member := archive.next()) is not None:
            archive.members.clear()  # otherwise tarfile caches a million of them
            name = _readable(member.name)
            if member.issparse() or "\0" in name or len(archive.pax_headers) > MOST_PAX:
                raise ValueError(f"member {name[:100]!a} is sparse, has a zero byte in its name, or more than {MOST_PAX} global headers")
            if not nested and member.isreg():
                yield where + name.removeprefix("./"), member.offset_data, member.size
            elif nested and member.isreg() and name.endswith(".tar"):
                stem = pathlib.PurePosixPath(name).stem
                for inner, offset, size in members(archive.extractfile(member), f"{path}:{name}", False, f"{stem}/"):
                    yield inner, member.offset_data + offset, size
    except NamedError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise NamedError(f"{path}: expected a whole, uncompressed tar file, but it is damaged, truncated or compressed "
                         f"({error or type(error).__name__})") from error
    file.seek(archive.offset)  # tarfile takes a damaged or missing header for the end of the archive
    if file.read(END).strip(b"\0") or file.tell() < archive.offset + END // 2:
        raise NamedError(f"{path}: expected a whole tar file, but it is damaged or truncated at byte {archive.offset}")


def _readable(name):
    """A member's name as text: the bytes of old programs, which are not UTF-8, as Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name


def visible_files(folder):
    """Paths of the files below a folder, with "/" and relative to it, without hidden ones; sorted by folder.

    Raises:
        ValueError: a link to a folder around it, below which there is no end.
    """
    names, above = [], {}
    for parent, folders, files_here in os.walk(folder, followlinks=True):
        facts = os.stat(parent)
        place, around = (facts.st_dev, facts.st_ino), above.get(os.path.dirname(parent), ()) if parent != os.fspath(folder) else ()
        if place in around:
            raise ValueError(f"{parent}: expected no link to a folder above it")
        above[parent] = (*around, place)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        where = os.path.relpath(parent, folder).replace(os.sep, "/")
        names += [name if where == "." else f"{where}/{name}" for name in sorted(files_here) if not name.startswith(".")]
    return names
