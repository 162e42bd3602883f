"""One run per folder: the error names the holder, and a killed holder releases the lock."""
import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import pytest

from vmamba_jax.training import Locked, one_run
from vmamba_jax.training.run import lock

HOLDER = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.one_run(sys.argv[2]):
    child = os.fork()
    if child == 0:
        time.sleep(60)  # like a loader's worker, which outlives a killed run
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, lock.__file__, tmp_path], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(child, signal.SIGKILL)


def test_holder_is_named_and_its_death_releases_the_lock(tmp_path, holder):
    with pytest.raises(Locked, match=rf"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()}, since 20"), one_run(tmp_path):
        pass
    assert json.loads((tmp_path / ".lock").read_text())["process"] == holder.pid
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / ".lock").read_text())["process"] == holder.pid  # stale
    with one_run(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()


@pytest.mark.parametrize("ended", [True, False])
def test_copy_in_a_child_of_a_killed_run(tmp_path, ended):
    """It is waited for, as a new child closes its copy soon; a run that lives is not."""
    process = subprocess.Popen(["sleep", "0" if ended else "60"])
    if ended:
        process.wait()
    copy = open(tmp_path / ".lock", "w")
    copy.write(json.dumps({"process": process.pid, "host": socket.gethostname(), "since": "2026-01-01"}))
    copy.flush()
    fcntl.flock(copy, fcntl.LOCK_EX)
    timer = threading.Timer(0.3, copy.close)
    timer.start()
    with contextlib.nullcontext() if ended else pytest.raises(Locked), one_run(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    timer.join()
    process.kill()
    process.wait()


def test_lock_is_reentrant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_run("new"):
        with one_run(pathlib.Path("new").absolute()):
            assert lock._held[tmp_path / "new" / ".lock"] == 2
        assert (tmp_path / "new" / ".lock").read_text()
    assert not lock._held and not (tmp_path / "new" / ".lock").read_text()


def test_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), one_run(tmp_path / "file" / "run"):
        pass
