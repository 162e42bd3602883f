"""Atomic writes of files and folders that a power loss leaves whole, the digest of a file, JSON files and JSON lines."""
import contextlib
import errno
import hashlib
import json
import os
import pathlib
import secrets
import shutil

from vmamba_jax.core import limits
from vmamba_jax.core.run_folder import RemotePath, local_draft, run_folder


@contextlib.contextmanager
def atomic(path):
    """A context manager that yields the path of a temporary file, which replaces `path` at the end.

    Readers see the old file or all of the new one, also after a power loss: file and folder are flushed to the disk. The
    temporary file is in the same folder, has a name of its own (several processes may write one path) and is removed if the
    block raises. Missing parent folders are created. A `RemotePath` is written as one object.
    """
    if isinstance(path, RemotePath):
        with local_draft(path) as draft:
            yield draft
        return
    path, draft = pathlib.Path(path), _draft(path)
    try:
        yield draft
        sync(draft)  # renamed without it, a file can be empty after a power loss
        os.replace(draft, path)
        sync(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path):
    """A context manager that yields a new, empty folder, which replaces the folder `path` at the end.

    The new folder is removed if the block raises; the old one is restored if the renaming fails. Missing parent folders are created.
    """
    path, draft = pathlib.Path(path), _draft(path)
    old = draft.with_suffix(".old")
    try:
        draft.mkdir()
        yield draft
        for part in (*draft.rglob("*"), draft):
            sync(part)
        if path.exists():
            path.rename(old)
        try:
            draft.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sync(path):
    """Flush a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without it for folders
            raise
    finally:
        os.close(descriptor)


def write_json(path, content):
    """Write `content` as indented JSON, atomically."""
    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path):
    """The content of a JSON file; None if there is no file.

    Raises:
        ValueError: the file is not JSON, such as an empty file after a power loss; the message names it.
    """
    path = run_folder(path)
    try:
        raw = path.read_bytes()
        limits.check_json(raw, path)
        return json.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        what = "an empty file" if not raw else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: expected a JSON file ({what}); restore it, or move it away") from error


def sha256(path):
    """The SHA-256 of a file's content, as a hex digest."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json_lines(path, number=None):
    """The objects of a JSONL file as a list of dicts, without a last line that a crash left incomplete.

    Args:
        path: the file.
        number: key that must have a number in every object; None: no such key.

    Raises:
        ValueError: any other line is not such an object; the message names the line.
    """
    raw = run_folder(path).read_bytes()
    limits.check_json(raw, path)
    lines = raw.decode("utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows = []
    for i, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or (number is not None and (isinstance(row[number], bool) or not isinstance(row[number], (int, float)))):
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            expected = "a JSON object" if number is None else f"a JSON object with a number {number!r}"
            raise ValueError(f"{path}, line {i}: expected {expected}, got {line.strip()[:80]!r}") from error
        rows.append(row)
    return rows


def _draft(path):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
