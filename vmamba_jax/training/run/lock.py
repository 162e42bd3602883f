"""One run per folder: a lock that the operating system releases when its process ends for any reason.

The package `filelock` is not used: on a file system without flock it falls back on a file whose existence is the lock, where this module
raises an OSError.
"""
import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
import time
import weakref

from vmamba_jax.core.run_folder import RemotePath, run_folder
from vmamba_jax.training.run import remote_lock

FILE = ".lock"
PATIENCE = 2  # seconds in which a forked child of a killed run closes its copy of the lock
_held = {}  # path: how many times this process holds it
_open = weakref.WeakSet()


class Locked(OSError):
    """Another process uses the folder; the message names it."""


@contextlib.contextmanager
def one_run(folder):
    """A context that locks a folder, created if absent. The same process may lock it several times.

    The lock is `flock` on FOLDER/.lock, which contains process, host and start time. A killed run leaves the file but not the lock, and the
    next run acquires it. Network file systems must support flock. A folder at a URL is locked as `remote_lock` says.

    Raises:
        Locked: another process holds the lock.
    """
    if isinstance(folder := run_folder(folder), RemotePath):
        with remote_lock.one_run(folder / FILE, Locked):
            yield
        return
    path = pathlib.Path(folder).absolute() / FILE
    if path in _held:
        _held[path] += 1
        try:
            yield
        finally:
            _held[path] -= 1
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        _acquire(file, path)
        _open.add(file)
        _held[path] = 1
        try:
            yield
        finally:
            del _held[path]
            file.truncate(0)


def check(folder):
    """Raise `Locked` if another run has replaced this process's lock of a folder at a URL; a local lock is never replaced."""
    if isinstance(folder, RemotePath):
        remote_lock.check(folder, Locked)


def _acquire(file, path):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not _ended(path) or time.monotonic() > end:
                raise Locked(f"{path.parent} is in use by {_holder(path)}: wait for it, stop it, or choose another folder") from None
            time.sleep(0.02)
    file.truncate(0)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}) + "\n")
    file.flush()


def _ended(path):
    """Whether the process that the lock file names was one of this host and exists no longer."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["host"] != socket.gethostname():
            return False
        os.kill(held["process"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return False


def _holder(path):
    try:
        return "process {process} on {host}, since {since}".format(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return "another process"


def _release_in_child():
    """Closes the lock files in a forked child, whose copies would keep the lock after the run has ended."""
    for file in list(_open):
        os.close(file.fileno())
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
