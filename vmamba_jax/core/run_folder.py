"""The folder of a run: a path on a disk, or objects below a URL, which have no rename, no append and no flush, behind the same few methods."""
import contextlib
import fnmatch
import pathlib
import shutil
import tempfile

from vmamba_jax.core.objects import Objects, is_url

WRITABLE = ("gs", "s3")


def run_folder(path):
    """The folder or file at `path`: a pathlib.Path, or a `RemotePath` for a URL or a `RemotePath`.

    Raises:
        ValueError: a URL that is not gs:// or s3://.
    """
    if isinstance(path, RemotePath):
        return path
    return RemotePath(path) if is_url(path) else pathlib.Path(path)


class RemotePath:
    """An object, or the objects below it, with the methods of pathlib.Path that runs use. A folder exists if there is an object below it.

    Every write replaces a whole object at once. It is no os.PathLike: pathlib.Path would take a URL for a local path.

    Args:
        url: gs://bucket/path or s3://bucket/path.
    """

    def __init__(self, url):
        self._url = url.rstrip("/")
        scheme, _, place = self._url.partition("://")
        self._bucket, _, self._key = place.partition("/")
        if scheme not in WRITABLE or not self._bucket or not self._key:
            raise ValueError(f"path={url}: expected a local path, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER")
        self.objects = Objects(f"{scheme}://{self._bucket}")

    name = property(lambda self: self._key.rpartition("/")[2])
    parent = property(lambda self: RemotePath(self._url.rpartition("/")[0]))

    def __truediv__(self, name):
        return RemotePath(f"{self._url}/{name}")

    def __str__(self):
        return self._url

    def __repr__(self):
        return f"RemotePath({self._url!r})"

    def __eq__(self, other):
        return isinstance(other, RemotePath) and self._url == other._url

    def __hash__(self):
        return hash(self._url)

    def __lt__(self, other):
        return self._url < other._url

    def absolute(self):
        return self

    def mkdir(self, parents=False, exist_ok=False):
        """Nothing: object stores have no folders."""

    def read_bytes(self):
        content = self.objects.read(self._key)
        if content is None:
            raise FileNotFoundError(f"{self._url}: expected an object, which does not exist")
        return content

    def read_text(self, encoding="utf-8", errors="strict"):
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, content):
        self.objects.write(self._key, content)

    def read_stamped(self):
        """See `Objects.read_stamped`."""
        return self.objects.read_stamped(self._key)

    def write_if(self, content, generation):
        """See `Objects.write`."""
        return self.objects.write(self._key, content, generation)

    def read_range(self, start, stop):
        """Bytes [start, stop); FileNotFoundError or EOFError if they are not all there."""
        content = self.objects.read(self._key, start, stop)
        if content is None:
            raise FileNotFoundError(f"{self._url}: expected an object, which does not exist")
        return content

    def is_file(self):
        return self._key in self.objects.list(self._key)

    def is_dir(self):
        return bool(self.objects.list(f"{self._key}/"))

    def exists(self):
        return any(key == self._key or key.startswith(f"{self._key}/") for key in self.objects.list(self._key))

    def unlink(self, missing_ok=False):
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(f"{self._url}: expected an object, which does not exist")
        self.objects.delete(self._key)

    def below(self):
        """Sorted keys of all objects below, relative to this path."""
        return [key.removeprefix(f"{self._key}/") for key in self.objects.list(f"{self._key}/")]

    def glob(self, pattern):
        """The objects directly below whose names match a pattern."""
        return [self / key for key in self.below() if "/" not in key and fnmatch.fnmatchcase(key, pattern)]


@contextlib.contextmanager
def local_draft(path):
    """A context manager that yields the path of a temporary local file, which is written to the `RemotePath` at the end unless the block raises."""
    with tempfile.TemporaryDirectory(prefix="vmamba_jax.") as folder:
        draft = pathlib.Path(folder, path.name)
        yield draft
        path.write_bytes(draft.read_bytes())


@contextlib.contextmanager
def local_copy(path):
    """A context manager that yields a local file with the content of `path`: itself, or a temporary copy of a `RemotePath`."""
    if not isinstance(path, RemotePath):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vmamba_jax.") as folder:
        copy = pathlib.Path(folder, path.name)
        copy.write_bytes(path.read_bytes())
        yield copy


class Mirror:
    """A local folder whose files are copied to a remote one when `upload` is called; deleted by `close`.

    Args:
        folder: `RemotePath`.
        names: files of it that are read first.
    """

    def __init__(self, folder, names=()):
        self.folder, self.local, self._sent = folder, pathlib.Path(tempfile.mkdtemp(prefix="vmamba_jax.")), {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self.local / name).write_bytes((folder / name).read_bytes())

    def upload(self):
        """Write every file that has grown or changed since the last call."""
        for path in sorted(self.local.rglob("*")):
            if path.is_file() and self._sent.get(path) != (stamp := (path.stat().st_size, path.stat().st_mtime_ns)):
                (self.folder / path.relative_to(self.local).as_posix()).write_bytes(path.read_bytes())
                self._sent[path] = stamp

    def close(self):
        shutil.rmtree(self.local, ignore_errors=True)
