"""A signal stops a run after the current step, saved; a second signal ends the process."""
import os
import pathlib
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy
from vmamba_jax import training
from vmamba_jax.training.run.signals import stop_requests

ROOT = pathlib.Path(__file__).parent.parent.parent
OPTIMIZER = training.optimizer.create("adamw", learning_rate=0.01)
CLASSIFIER = Classifier(Net("batch", dropout=0.3))
STEP = training.objectives.standard(CLASSIFIER, OPTIMIZER)
TWICE = """
import os, signal, time
from vmamba_jax.training.run.signals import stop_requests
for number in (signal.SIGTERM, signal.SIGINT):
    if (child := os.fork()) == 0:
        with stop_requests() as requested:
            assert requested(1) is None
            os.kill(os.getpid(), number)
            assert requested(2) == number.name
            os.kill(os.getpid(), number)
            time.sleep(60)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number
print("both ended")
"""


class Signalling(Toy):
    """Sends this process a signal when batch `at` is read."""

    def __init__(self, at, number):
        super().__init__()
        self.at, self.number = at, number

    def __getitem__(self, t):
        if t == self.at:
            os.kill(os.getpid(), self.number)
        return super().__getitem__(t)


def run(batches, folder, **options):
    state = training.create_state(CLASSIFIER, OPTIMIZER, jax.random.key(0), SHAPE)
    monitoring = training.Monitoring(log_every=5, progress=False, **options)
    return training.train(STEP, state, batches, steps=12, key=jax.random.key(1), workdir=folder, monitoring=monitoring)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_stops(tmp_path, number):
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(training.Stopped, match=rf"stopped by {number.name} after step \d+ of 12, saved in .*checkpoints"):
        run(Signalling(6, number), tmp_path / "stopped", stop_on_signals=True)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    with training.Checkpoints(tmp_path / "stopped" / "checkpoints", read_only=True) as checkpoints:
        assert 4 <= checkpoints.latest_step <= 8  # batches are prefetched two steps ahead
    resumed, unbroken = run(Toy(), tmp_path / "stopped"), run(Toy(), tmp_path / "unbroken")
    jax.tree.map(np.testing.assert_array_equal, resumed, unbroken)
    assert (tmp_path / "stopped" / "metrics.jsonl").read_bytes() == (tmp_path / "unbroken" / "metrics.jsonl").read_bytes()


def test_signal_in_the_last_step(tmp_path):
    def last(step, values):
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    assert int(run(Toy(), tmp_path, stop_on_signals=True, on_log=last).step) == 12


def test_second_signal_ends_the_process():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert done.stdout == "both ended\n", done.stderr


def test_no_handlers_in_other_threads():
    before, found = signal.getsignal(signal.SIGTERM), []

    def other_thread():
        with stop_requests() as requested:
            found.append((requested(1), signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    with stop_requests(listen=False) as requested:
        found.append((requested(1), signal.getsignal(signal.SIGTERM) is before))
    assert found == [(None, True), (None, True)]
