"""Atomic writes of files and folders, and the digest of a file."""
import contextlib
import hashlib
import os
import pathlib
import secrets
import shutil


@contextlib.contextmanager
def atomic(path):
    """A context manager that yields the path of a temporary file, which replaces `path` at the end.

    Readers see the old file or all of the new one. The temporary file is in the same folder, has a name of its own
    (several processes may write one path) and is removed if the block raises. Missing parent folders are created.
    """
    path, draft = pathlib.Path(path), _draft(path)
    try:
        yield draft
        os.replace(draft, path)
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
        if path.exists():
            path.rename(old)
        try:
            draft.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sha256(path):
    """The SHA-256 of a file's content, as a hex digest."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _draft(path):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
