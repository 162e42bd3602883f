"""Two processes of one run: a signal to one of them stops both at the same step, and both resume to the same end; also with a sharded state."""
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from tests.helpers import s3_server
from vmamba_jax import training

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(folder, signal_at=0, sharding="replicated"):
    """The last line that each of the two processes prints; Gloo prints before."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [subprocess.Popen([sys.executable, "-m", "tests.helpers.two_processes", str(port), str(i), folder, str(signal_at), sharding],
                             cwd=ROOT, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE) for i in range(2)]
    printed = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    return [out.splitlines()[-1] for out, _ in printed]


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicated", "fsdp"])
def test_signal_to_one_process_stops_both(tmp_path, sharding):
    assert run(tmp_path / "unbroken", sharding=sharding) == ["finished"] * 2
    stopped = run(tmp_path / "stopped", signal_at=12, sharding=sharding)
    assert stopped[0] == stopped[1] and 10 <= int(re.search(r"after step (\d+) of 40, saved in", stopped[0])[1]) < 40
    assert run(tmp_path / "stopped", sharding=sharding) == ["finished"] * 2
    for name in ("metrics.jsonl", "final0.npz", "final1.npz"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    assert (tmp_path / "stopped" / "final0.npz").read_bytes() == (tmp_path / "stopped" / "final1.npz").read_bytes()


@pytest.mark.slow
def test_sharded_run_in_a_bucket(tmp_path, monkeypatch):
    """Each process writes its own shards; stopped, the run resumes to the same bits, and one process reads the whole."""
    for name in ("unbroken", "stopped"):
        (tmp_path / name).mkdir()
    with s3_server.serve("bucket") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WORKDIR", "s3://bucket/unbroken")
        assert run(tmp_path / "unbroken", sharding="fsdp") == ["finished"] * 2
        monkeypatch.setenv("WORKDIR", "s3://bucket/stopped")
        stopped = run(tmp_path / "stopped", signal_at=12, sharding="fsdp")
        assert stopped[0] == stopped[1] and "saved in s3://bucket/stopped/checkpoints" in stopped[0]
        assert run(tmp_path / "stopped", sharding="fsdp") == ["finished"] * 2
        stored = server.buckets["bucket"]
        assert stored["stopped/metrics.jsonl"] == stored["unbroken/metrics.jsonl"] and stored["stopped/metrics.jsonl"]
        packs = {key.rpartition("/")[2] for key in stored if key.endswith(".bin")}
        assert packs == {"0-0.bin", "1-0.bin"}
        variables = training.restore_variables("s3://bucket/stopped/checkpoints")
    for name in ("final0.npz", "final1.npz"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    assert variables["params"]["Dense_0"]["kernel"].shape == (16, 16)
