"""Killed by SIGKILL again and again, during saves too, a run ends as an unbroken one: state and metrics to the bit."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
PROGRAM = HERE / "killed_runs.py"


@pytest.mark.parametrize("seed, kills, steps", [(0, 4, 24), pytest.param(1, 24, 150, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_as_an_unbroken_one(tmp_path, seed, kills, steps):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE.parent.parent, HERE)))}
    done = subprocess.run([sys.executable, PROGRAM, tmp_path, str(seed), str(kills), str(steps)], capture_output=True, text=True, env=environment,
                          timeout=900)
    assert done.returncode == 0, done.stderr
    deaths = json.loads(done.stdout)["deaths"]
    assert len(deaths) == kills, f"the run ended after {len(deaths)} of {kills} kills: it needs more steps"
    assert sum(under_way for _, under_way in deaths) >= kills // 4
    for name in ("metrics.jsonl", "final.npz"):
        unbroken, killed = ((tmp_path / run / name).read_bytes() for run in ("unbroken", "killed"))
        assert unbroken == killed and unbroken, name
