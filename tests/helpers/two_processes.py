"""One of two processes of a run: python -m tests.helpers.two_processes PORT PROCESS FOLDER SIGNAL_AT SHARDING, where SIGNAL_AT 0 sends no signal; WORKDIR in the environment is the run's folder instead."""
import os
import pathlib
import signal
import sys

import jax
import numpy as np

from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy
from vmamba_jax import parallel, training
from vmamba_jax.core.gathered import on_host


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


def main(port, process, folder, signal_at, sharding):
    process, folder = int(process), pathlib.Path(folder)
    jax.config.update("jax_num_cpu_devices", 2)
    parallel.initialize(f"127.0.0.1:{port}", 2, process)
    training.sharding.SMALLEST = 8
    optimizer = training.optimizer.create("adamw", learning_rate=0.01, clip_norm=0.5)
    classifier = Classifier(Net("layer"))
    step = training.objectives.standard(classifier, optimizer)
    mesh = parallel.data_mesh()

    def begin():
        return training.create_state(classifier, optimizer, jax.random.key(0), SHAPE, mesh=mesh, sharding=sharding)

    batches = Stream(process, int(signal_at))
    try:
        state = training.train(step, begin, batches, steps=40, key=jax.random.key(1), workdir=os.environ.get("WORKDIR") or folder, mesh=mesh, sharding=sharding,
                               checkpoints=training.Checkpointing(every=10),
                               monitoring=training.Monitoring(log_every=7, progress=False, stop_on_signals=True))
    except training.Stopped as stop:
        print(stop)
    else:
        assert (state.params["Dense_0"]["kernel"].addressable_data(0).shape == (4, 16)) == (sharding == "fsdp")
        assert parallel.fingerprint(state)
        np.savez(folder / f"final{process}.npz", *map(on_host, jax.tree.leaves(state)))
        print("finished")


if __name__ == "__main__":
    main(*sys.argv[1:])
