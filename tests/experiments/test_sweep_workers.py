"""A sweep by several processes that the program starts: how many, what they share, and how it ends if one does not finish."""
import os
import pathlib

import pytest

from experiments import sweep
from experiments.common import cli, environment
from experiments.sweeps import records, workers
from tests.helpers import fake_sweep

NAMES = ["standard/seed_0", "pgd_at/seed_0", "standard/seed_1", "pgd_at/seed_1"]
ROOT = pathlib.Path(__file__).parents[2]


def test_count(monkeypatch):
    assert workers.count(1) == 1 and workers.count(3) == 3 and workers.count(0) == environment.cores()
    with pytest.raises(cli.ConfigError, match="--workers=-1: expected 0"):
        workers.count(-1)
    monkeypatch.setattr(workers.jax, "default_backend", lambda: "gpu")
    assert workers.count(1) == 1 and workers.count(0) == 1
    with pytest.raises(cli.ConfigError, match="--workers=2: expected 1 on gpu"):
        workers.count(2)
    monkeypatch.setenv(workers.INSIDE, "1")
    assert workers.count(2) == 1


def start(workdir, monkeypatch, *arguments):
    """Both workers are `tests.helpers.fake_sweep` with these arguments. Returns (records, lines)."""
    monkeypatch.setattr(cli, "GIVEN", [str(workdir), *arguments])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lines = []
    found = workers.run(fake_sweep.plan(), workdir, 2, "tests.helpers.fake_sweep", lambda *run: lines.append(sweep.line(*run)) or lines[-1])
    return found, lines


@pytest.mark.slow
def test_two_workers_share_the_runs(tmp_path, monkeypatch, capsys):
    found, lines = start(tmp_path, monkeypatch, "sleep", "1.5")
    assert {name: record["status"] for name, record in found.items()} == dict.fromkeys(NAMES, "done")
    assert len({record["process"] for record in found.values()}) == 2 and os.getpid() not in {record["process"] for record in found.values()}
    assert sorted(line.split()[1].rstrip(":") for line in lines) == sorted(NAMES) and not list(tmp_path.glob("worker_*.log"))
    again, lines = start(tmp_path, monkeypatch, "sleep", "1.5")
    assert again == found and lines == []


@pytest.mark.slow
def test_worker_that_does_not_finish(tmp_path, monkeypatch):
    """Both are killed in their first run: the error names the log, and the runs are open."""
    with pytest.raises(cli.RunError, match=r"status -9 before all runs had: see .*worker_0.log"):
        start(tmp_path, monkeypatch, "kill", "1")
    assert {records.read(tmp_path / name).get("status") for name in NAMES} == {"running", None}
    assert (tmp_path / "worker_0.log").exists()
