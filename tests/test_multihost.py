"""Two processes of four CPU devices each are one process of eight: what they train, save and resume."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import saved
from experiments import train
from vmamba_jax import parallel, training

ROOT = pathlib.Path(__file__).parent.parent
PATIENCE = 300  # seconds for programs that need a few
EPOCH = 19      # steps
PROGRAM = [
    "-m", "experiments.train", "--config=configs/digits.py:objective=pgd_at", "--config.epochs=2", "--config.batch_size=64",
    "--config.log_every=5", "--config.objective.attack.steps=1", "--config.validation.attack.steps=1", "--config.validation.every_epochs=1",
    "--config.watchdog.factor=3", "--config.watchdog.least=2", "--config.model.name=resnet18", "--config.model.overrides={'stem': 'cifar', 'stem_width': 8, 'layers': (1,), 'channels': (8,)}"]


class Run:
    """The training program in two processes of four devices each; what process i prints goes to `folder`.i. A context manager."""

    def __init__(self, folder, bytecode):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        shared = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4", "PYTHONPYCACHEPREFIX": str(bytecode),
                  "VMAMBA_JAX_COORDINATOR": address, "VMAMBA_JAX_PROCESSES": "2"}
        shared.pop("PYTHONDONTWRITEBYTECODE", None)
        self.logs, self.processes = [pathlib.Path(f"{folder}.{i}") for i in range(2)], []
        for i, log in enumerate(self.logs):
            with open(log, "w") as out:
                self.processes.append(subprocess.Popen([sys.executable, *PROGRAM, f"--workdir={folder}"], cwd=ROOT, stdout=out, stderr=out,
                                                       env={**shared, "VMAMBA_JAX_PROCESS": str(i)}))

    def wait(self, until):
        """Wait for `until()`; what was printed is the error where a process fails, all end before, or it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            ended = [process.poll() for process in self.processes]
            runs = None in ended and set(ended) <= {None, 0} and time.monotonic() < deadline
            assert runs, f"{ended}\n" + "\n".join(log.read_text() for log in self.logs)
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of one config: {"killed": by two processes, killed in the second epoch; "one": the same, resumed by one process of eight devices;
    "unbroken": by one process in one go; "bytecode": what Python compiles of the packages}."""
    base = tmp_path_factory.mktemp("multihost")
    found = {name: base / name for name in ("killed", "one", "unbroken", "bytecode")}
    with Run(found["killed"], found["bytecode"]) as run:
        run.wait(lambda: (found["killed"] / "checkpoints" / str(EPOCH)).is_dir())
    shutil.copytree(found["killed"], found["one"])
    config = saved.get_config(str(found["killed"] / "config.json"))
    for name in ("one", "unbroken"):
        train.run(config, found[name], progress=False)
    return found


def check_as_unbroken(folder, folders):
    """The metrics and final weights of a run are, to rounding, those of the unbroken one."""
    rows, expected = training.read_metrics(folder), training.read_metrics(folders["unbroken"])
    assert [row["step"] for row in rows] == [5, 10, 15, EPOCH, 20, 25, 30, 35, 2 * EPOCH, 2 * EPOCH]
    for row, wanted in zip(rows, expected, strict=True):
        assert row.keys() == wanted.keys()
        np.testing.assert_allclose(list(row.values()), list(wanted.values()), rtol=2e-5, atol=1e-6, err_msg=str(row))
    found, final = (training.restore_variables(run / "checkpoints") for run in (folder, folders["unbroken"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, final)


@pytest.mark.slow
def test_two_processes_killed_on_their_way_are_resumed_by_one(folders):
    assert not (folders["killed"] / "results.json").exists()
    with training.Checkpoints(folders["killed"] / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [EPOCH]
    check_as_unbroken(folders["one"], folders)


@pytest.mark.slow
def test_two_processes_resume_and_agree_to_the_bit(folders):
    """At the end each hashes its own weights, and the program fails where the hashes differ. On the way one of them is held up, which process 0 reports."""
    resumed = folders["killed"].with_name("two")
    shutil.copytree(folders["killed"], resumed)
    with Run(resumed, folders["bytecode"]) as run:
        run.wait(lambda: training.read_metrics(resumed)[-1]["step"] > EPOCH)
        os.kill(run.processes[1].pid, signal.SIGSTOP)
        try:
            run.wait(lambda: re.search(r"watchdog: step \d+ has not ended .* late: process 1 \(host .*silent for", run.logs[0].read_text()))
        finally:
            os.kill(run.processes[1].pid, signal.SIGCONT)
        run.wait(lambda: [process.poll() for process in run.processes] == [0, 0])
    check_as_unbroken(resumed, folders)
    printed = [log.read_text() for log in run.logs]
    assert "best on validation" in printed[0] and "best on validation" not in printed[1]
    results = json.loads((resumed / "results.json").read_text())
    assert results["sha256"] == parallel.fingerprint(training.restore_variables(resumed / "checkpoints"))
