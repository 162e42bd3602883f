"""Shard files on disks, in buckets and on web servers: found by pattern, read by ranges and in order."""
import io
import os
import pathlib
import re
import urllib.parse

from vmamba_jax.core.objects import SCHEMES, Objects, is_url

BLOCK = 8 << 20  # bytes of one request while a remote file is read in order
MOST_SHARDS = 1 << 17  # that a pattern may name


class Place:
    """One file; `read` may be called by several threads, and a place pickles.

    Args:
        path: of a local file, or a URL: gs, s3, http and https through TensorStore, any other scheme through fsspec.
    """

    def __init__(self, path):
        path = os.fspath(path)
        self.path = urllib.parse.unquote(path.removeprefix("file://")) if path.startswith("file://") else path
        self.remote = is_url(self.path)
        folder, _, self._key = self.path.rpartition("/")
        self._objects = Objects(folder) if self.remote and self.path.split("://")[0] in SCHEMES else None

    @property
    def name(self):
        return self.path.rsplit("/", 1)[-1]

    def size(self):
        """Bytes; FileNotFoundError without the file."""
        if not self.remote:
            if not os.path.isfile(self.path):
                raise FileNotFoundError(f"{self.path}: expected a file, which does not exist")
            return os.stat(self.path).st_size
        size = self._objects.size(self._key) if self._objects else self._other().size(self.path)
        if size is None:
            raise FileNotFoundError(f"{self.path}: expected a file, which does not exist")
        return size

    def read(self, offset, n):
        """n bytes at an offset, or fewer at the file's end."""
        if not self.remote:
            file = os.open(self.path, os.O_RDONLY)  # opened anew: a set has more shards than a process may have open files
            try:
                return os.pread(file, n, offset)
            finally:
                os.close(file)
        if self._objects is None:
            return self._other().cat_file(self.path, start=offset, end=offset + n)
        try:
            content = self._objects.read(self._key, offset, offset + n) if n else b""
        except EOFError:
            size = self.size()
            content = self._objects.read(self._key, offset, size) if offset < size else b""
        if content is None:
            raise FileNotFoundError(f"{self.path}: expected a file, which does not exist")
        return content

    def whole(self):
        """All bytes; None: no such file."""
        try:
            if not self.remote:
                return pathlib.Path(self.path).read_bytes()
            return self._objects.read(self._key) if self._objects else self._other().cat_file(self.path)
        except FileNotFoundError:
            return None

    def write(self, content):
        """Replace a remote file by `content`; OSError where that is not allowed."""
        if self._objects:
            self._objects.write(self._key, content)
        else:
            self._other().pipe_file(self.path, content)

    def open(self):
        """The file for reading in order, seekable; a remote one in blocks of 8 MiB."""
        return io.BufferedReader(_Blocks(self), 1 << 16) if self.remote else open(self.path, "rb")

    def _other(self):
        import fsspec  # for the schemes that TensorStore lacks
        return _explained(self.path, fsspec.filesystem, self.path.split("://")[0])


class _Blocks(io.RawIOBase):
    """A seekable raw file that holds one block of a place."""

    def __init__(self, place):
        self._place, self._size, self._at, self._start, self._block = place, place.size(), 0, 0, b""

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self):
        return self._at

    def readinto(self, buffer):
        if not self._start <= self._at < self._start + len(self._block) and self._at < self._size:
            self._start, self._block = self._at, self._place.read(self._at, min(BLOCK, self._size - self._at))
        part = self._block[self._at - self._start:][:len(buffer)] if self._start <= self._at else b""
        buffer[:len(part)] = part
        self._at += len(part)
        return len(part)


def join(root, name):
    """A path or URL below a root."""
    return f"{os.fspath(root).rstrip('/')}/{name}"


def find(root, pattern, listed=False):
    """Sorted paths of the shards below a root.

    Args:
        root: folder or URL.
        pattern: name with "*" and "?", which the folder's list is compared with, and {000..127}, which is every number from 000 to 127. A pattern
            without "*" and "?" is compared with it only if `listed`, as web servers have no lists.
        listed: return only files that the list has.
    """
    root = os.fspath(root)
    root = urllib.parse.unquote(root.removeprefix("file://"))
    names = _expand(pattern)
    if not listed and not any(sign in pattern for sign in "*?"):
        return [join(root, name) for name in names]
    if not is_url(root):
        return sorted({str(path) for name in names for path in pathlib.Path(root).glob(name) if path.is_file()})
    if root.split("://")[0] in ("http", "https"):
        raise ValueError(f"files={pattern!r}: expected names or ranges such as {{000..127}} under root={root!r}, as web servers have no lists")
    if root.split("://")[0] in SCHEMES:
        listed = Objects(root).list(re.split(r"[*?{]", pattern)[0])
    else:
        import fsspec
        system = _explained(root, fsspec.filesystem, root.split("://")[0])
        head = system._strip_protocol(root).strip("/") + "/"
        listed = [path.strip("/").removeprefix(head) for path in system.find(root)]
    return [join(root, key) for key in sorted(key for key in listed if any(_fits(key, name) for name in names))]


def _fits(key, pattern):
    """Whether a key fits a pattern whose "*" and "?" do not stand for "/"."""
    signs = {"*": "[^/]*", "?": "[^/]"}
    return re.fullmatch("".join(signs.get(sign, re.escape(sign)) for sign in pattern), key) is not None


def _expand(pattern):
    """The names that {first..last} in a pattern stands for."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if found is None:
        return [pattern]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MOST_SHARDS:
        raise ValueError(f"files={pattern!r}: expected a range of 1 to {MOST_SHARDS} shards")
    width = len(found[1])
    return [name for k in range(first, last + 1) for name in _expand(f"{pattern[:found.start()]}{k:0{width}}{pattern[found.end():]}")]


def _explained(path, make, scheme):
    try:
        return make(scheme)
    except (ImportError, ValueError) as error:
        raise ValueError(f"root={path!r}: expected a scheme of TensorStore ({', '.join(SCHEMES)}) or an installed one of fsspec, but {error}") from error
