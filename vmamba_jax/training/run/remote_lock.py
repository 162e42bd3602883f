"""One run per folder in an object store: a lock object, created on the condition that there is none, and renewed while the run lives.

A killed run leaves its object. Another process replaces it once its writer has ended on the same host, or once it was not renewed for `LEASE`
seconds of the waiting process's own clock, so clocks of different hosts are never compared. A run that was suspended for longer finds the lock
replaced: its next checkpoint or line of metrics raises `Locked`.
"""
import contextlib
import datetime
import json
import os
import pathlib
import socket
import sys
import threading
import time

from vmamba_jax.core.objects import StoreError

LEASE, RENEWAL, PAUSE = 60.0, 15.0, 1.0  # seconds until a lock counts as left, between two renewals, between two looks at another's lock
_held = {}  # path: its _Held in this process


class _Held:
    """A lock of this process and the thread that renews it."""

    def __init__(self, path, owner, generation):
        self.path, self.owner, self.generation, self.uses = path, owner, generation, 1
        self.lost, self._ended, self.renewed = "", threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()

    def _renew(self):
        renewals = 0
        while not self._ended.wait(RENEWAL):
            renewals += 1
            with contextlib.suppress(StoreError):  # unreachable for now; `check` fails once the lease has passed
                written = self.path.write_if(json.dumps(self.owner | {"renewals": renewals}).encode(), self.generation)
                if written is None:
                    content, generation = self.path.read_stamped()
                    if content is not None and _owner(content).get("id") == self.owner["id"]:  # a renewal whose answer was lost
                        written = generation
                    else:
                        self.lost = describe(content)
                        return
                self.generation, self.renewed = written, time.monotonic()

    def release(self):
        self._ended.set()
        self._thread.join()
        if not self.lost:
            with contextlib.suppress(StoreError):
                self.path.write_if(None, self.generation)


@contextlib.contextmanager
def one_run(path, locked):
    """A context that holds the lock object at `path`.

    Args:
        path: `RemotePath` of it.
        locked: the class of the error raised if another run holds it.
    """
    if path in _held:
        _held[path].uses += 1
        try:
            yield
        finally:
            _held[path].uses -= 1
        return
    owner = {"process": os.getpid(), "host": socket.gethostname(), "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
             "id": os.urandom(8).hex(), "namespace": _namespace()}
    _held[path] = _Held(path, owner, _acquire(path, owner, locked))
    try:
        yield
    finally:
        _held.pop(path).release()


def check(folder, locked):
    """Raise `locked` if this process has held the lock of a folder and another run replaced it, or it could not be renewed in time."""
    held = _held.get(folder / ".lock")
    if held is None:
        return
    if held.lost:
        raise locked(f"{folder} is in use by {held.lost}, which took it over from this process: stop one of them")
    if time.monotonic() - held.renewed > LEASE:
        raise locked(f"{folder}: its lock could not be renewed for {LEASE:.0f} s: expected an object store that answers")


def _acquire(path, owner, locked):
    """The generation of the lock object, once it is this process's."""
    content, generation = path.read_stamped()
    since, told = time.monotonic(), False
    while True:
        if content is None or _ended(content) or time.monotonic() - since > LEASE:
            if (written := path.write_if(json.dumps(owner).encode(), generation)) is not None:
                return written
            path.is_file()  # raises for a missing bucket, of which S3 only says that the condition failed
        elif not told:
            print(f"{path.parent} is locked by {describe(content)}; waiting up to {LEASE:.0f} s for a sign of it", file=sys.stderr)
            told = True
        time.sleep(PAUSE)
        before, (content, generation) = generation, path.read_stamped()
        if content is not None and generation != before and not _ended(content):
            raise locked(f"{path.parent} is in use by {describe(content)}: wait for it, stop it, or choose another folder")


def describe(content):
    """In words which process the content of a lock object names."""
    try:
        return "process {process} on {host}, since {since}".format(**_owner(content or b""))
    except (KeyError, TypeError):
        return "another process"


def _owner(content):
    try:
        found = json.loads(content)
        return found if isinstance(found, dict) else {}
    except ValueError:
        return {}


def _ended(content):
    """Whether a lock names a process of this host and of this container that exists no longer."""
    found = _owner(content)
    if found.get("host") != socket.gethostname() or found.get("namespace") != _namespace() or not isinstance(found.get("process"), int):
        return False
    try:
        os.kill(found["process"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _namespace():
    """What process ids here refer to: the machine's start and the container's table of processes."""
    with contextlib.suppress(OSError):
        return f"{pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return "unknown"


def _forget_in_child():
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
