"""One run a folder: a lock that the system frees when its process ends, however it ends."""
import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
import weakref

FILE = ".lock"
_held = {}  # path: how many times this process has it
_open = weakref.WeakSet()


class Locked(OSError):
    """Another process works in the folder; the message names it."""


@contextlib.contextmanager
def one_run(folder):
    """Hold a folder, made where absent; `Locked` where another process has it. The same process may hold it several times over.

    The lock is `flock` on FOLDER/.lock, which names process, host and since when: of a killed run the file stays but holds nothing, and
    the next run takes it over. Network file systems must support flock.
    """
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
        _take(file, path)
        _open.add(file)
        _held[path] = 1
        try:
            yield
        finally:
            del _held[path]
            file.truncate(0)


def _take(file, path):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(f"{path.parent} is in use by {_holder(path)}: wait for it, stop it, or choose another folder") from None
    file.truncate(0)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}) + "\n")
    file.flush()


def _holder(path):
    try:
        return "process {process} on {host}, since {since}".format(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return "another process"


def _let_go():
    """In a forked child: a copy of the open file would keep the lock when the run is gone."""
    for file in list(_open):
        os.close(file.fileno())
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
