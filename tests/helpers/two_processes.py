"""One of two processes of a run: python -m tests.helpers.two_processes PORT PROCESS FOLDER SIGNAL_AT, where SIGNAL_AT 0 sends no signal."""
import os
import pathlib
import signal
import sys

import jax
import numpy as np

from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy
from vmamba_jax import parallel, training


class Stream:
    """This process' half of every batch, from a loader with a state; the second process gets SIGTERM when it reads batch `signal_at`."""

    def __init__(self, process, signal_at):
        self.batches, self.process, self.signal_at, self.taken = Toy(16), process, signal_at, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        if self.process == 1 and self.taken == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        half = slice(8 * self.process, 8 * self.process + 8)
        return {name: array[half] for name, array in self.batches[self.taken].items()}

    def get_state(self):
        return {"process": self.process, "taken": self.taken}

    def set_state(self, state):
        assert state["process"] == self.process
        self.taken = state["taken"]


def main(port, process, folder, signal_at):
    process, folder = int(process), pathlib.Path(folder)
    jax.config.update("jax_num_cpu_devices", 2)
    parallel.initialize(f"127.0.0.1:{port}", 2, process)
    optimizer = training.optimizer.create("adamw", learning_rate=0.01)
    classifier = Classifier(Net("layer"))
    step = training.objectives.standard(classifier, optimizer)
    state = training.create_state(classifier, optimizer, jax.random.key(0), SHAPE)
    batches = Stream(process, int(signal_at))
    try:
        state = training.train(step, state, batches, steps=40, key=jax.random.key(1), workdir=folder, mesh=parallel.data_mesh(),
                               checkpoints=training.Checkpointing(every=10),
                               monitoring=training.Monitoring(log_every=7, progress=False, stop_on_signals=True))
    except training.Stopped as stop:
        print(stop)
    else:
        np.savez(folder / f"final{process}.npz", *(np.asarray(x.addressable_data(0)) for x in jax.tree.leaves(state)))
        print("finished")


if __name__ == "__main__":
    main(*sys.argv[1:])
