"""A run killed by SIGKILL, also during saves and around a change of phase, resumes bit-exactly: state and metrics equal those of an uninterrupted run."""
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.mark.parametrize("seed, kills, steps, phases", [(0, 4, 24, 1), (2, 4, 24, 2), pytest.param(1, 24, 150, 1, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_killed_run_resumes_bit_exactly(tmp_path, seed, kills, steps, phases):
    done = subprocess.run([sys.executable, "-m", "tests.helpers.killed_runs", tmp_path, str(seed), str(kills), str(steps), str(phases)], cwd=ROOT,
                          capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)["kills"]
    assert len(killed) == kills, f"the run ended after {len(killed)} of {kills} kills: expected more steps"
    assert sum(unfinished for _, unfinished in killed) >= kills // 4
    for name in ("metrics.jsonl", "final.npz"):
        unbroken, resumed = ((tmp_path / run / name).read_bytes() for run in ("unbroken", "killed"))
        assert unbroken == resumed and unbroken, name
