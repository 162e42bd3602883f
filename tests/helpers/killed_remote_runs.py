"""A program that trains in an object store and is killed: python -m tests.helpers.killed_remote_runs FOLDER SEED KILLS STEPS

Trains without interruption in FOLDER/unbroken, then at s3://bucket/killed on a server of its own, where SIGKILL ends a forked child right before or
right after a request drawn from SEED, KILLS times. The last attempt runs to the end. Prints a JSON object.
"""
import json
import os
import pathlib
import random
import signal
import sys
import threading

import jax
import numpy as np
import orbax.checkpoint  # noqa: F401  imported here, once for all attempts

from tests.helpers import s3_server
from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy
from vmamba_jax import training

URL = "s3://bucket/killed"


def attempt(workdir, out, steps):
    """Starts or resumes the run, and writes its final arrays to `out`."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    optimizer = training.optimizer.create("adamw", learning_rate=0.01)
    classifier = Classifier(Net("batch", dropout=0.3))
    state = training.create_state(classifier, optimizer, jax.random.key(0), SHAPE, ema_decay=0.8)
    final = training.train(
        training.objectives.standard(classifier, optimizer, ema_decay=0.8), state, Toy(), steps=steps, key=jax.random.key(1), workdir=workdir,
        checkpoints=training.Checkpointing(every=2, best_metric="score", best_mode="min"),
        validation=training.Validation(lambda state, t: {"score": float(abs(state.params["Dense_0"]["kernel"]).sum())}, every=5),
        monitoring=training.Monitoring(log_every=3, progress=False))
    np.savez(out, *map(np.asarray, jax.tree.leaves(final)))


def start(*args):
    """The process id of a new attempt."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            attempt(*args)
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


class Killer:
    """Kills `child` at a write or deletion drawn by `rng`: half of the times before it takes effect, else right after."""

    def __init__(self, rng):
        self.child, self.ready, self.left, self.after = None, threading.Event(), rng.randint(2, 14), rng.random() < 0.5

    def before(self, method, key):
        self.ready.wait()
        self.left -= method in ("PUT", "DELETE")
        if self.left or method not in ("PUT", "DELETE"):
            return
        if self.after:
            threading.Timer(0.002, os.kill, (self.child, signal.SIGKILL)).start()
        else:
            os.kill(self.child, signal.SIGKILL)
            raise ConnectionAbortedError


def main(folder, seed, kills, steps):
    folder, rng, killed = pathlib.Path(folder), random.Random(seed), 0
    folder.mkdir(parents=True, exist_ok=True)
    assert os.waitpid(start(folder / "unbroken", folder / "unbroken.npz", steps), 0)[1] == 0
    with s3_server.serve("bucket") as server:
        os.environ.update(server.environment)
        while killed < kills:
            killer = Killer(rng)
            server.before, server.handle_error = killer.before, lambda *_: None
            killer.child = start(URL, folder / "killed.npz", steps)
            killer.ready.set()
            status = os.waitpid(killer.child, 0)[1]
            if status == 0:
                break
            assert os.WIFSIGNALED(status), f"an attempt ended by itself with status {status}"
            killed += 1
        server.before = lambda *_: None
        assert os.waitpid(start(URL, folder / "killed.npz", steps), 0)[1] == 0
        (folder / "metrics.jsonl").write_bytes(server.buckets["bucket"]["killed/metrics.jsonl"])
        print(json.dumps({"kills": killed, "keys": sorted(server.buckets["bucket"])}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
