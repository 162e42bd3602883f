"""A program that trains and is killed: one process imports everything once and forks a child for every attempt of a run.

    python -m tests.helpers.killed_runs FOLDER SEED KILLS STEPS PHASES

With PHASES=2 the second half of the steps has another batch size and label smoothing.
Trains without interruption in FOLDER/unbroken, then in FOLDER/killed, where SIGKILL ends a child at a moment drawn from SEED, KILLS times: after
some lines of metrics, at any instant, or while a save is unfinished. The last attempt runs to the end. Prints a JSON object.
"""
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time

import jax
import numpy as np
import orbax.checkpoint  # noqa: F401  imported here, once for all attempts

from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy
from vmamba_jax import training

TIMEOUT = 120  # seconds for one attempt


def attempt(folder, steps, phases):
    """Starts or resumes the run in the folder."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    optimizer = training.optimizer.create("adamw", learning_rate=0.01)
    classifier = Classifier(Net("batch", dropout=0.3))
    state = training.create_state(classifier, optimizer, jax.random.key(0), SHAPE, ema_decay=0.8)
    saved = [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdecimal()]
    for i in range(phases):
        first, end = i * steps // phases, (i + 1) * steps // phases
        if max(saved, default=0) > end:
            continue
        step = training.objectives.standard(classifier, optimizer, ema_decay=0.8, label_smoothing=0.1 * i)
        state = training.train(
            step, state, Toy(16 - 8 * i), steps=end, first=first, key=jax.random.key(1), workdir=folder,
            checkpoints=training.Checkpointing(every=2, best_metric="score", best_mode="min", rank=i == phases - 1),
            validation=training.Validation(lambda state, t: {"score": float(abs(state.params["Dense_0"]["kernel"]).sum())}, every=5),
            monitoring=training.Monitoring(log_every=3, progress=False))
    np.savez(folder / "final.npz", *map(np.asarray, jax.tree.leaves(state)))


def start(folder, steps, phases):
    """The process id of a new attempt."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            attempt(folder, steps, phases)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saving(folder):
    return any(folder.glob("checkpoints/*.orbax-checkpoint-tmp*"))


def kill(child, folder, rng):
    """Kills the child at a moment of a kind drawn by `rng`; returns (kind, whether a save was unfinished), or None if it had ended before."""
    kind, since = rng.choice(("instant", "lines", "saving")), time.monotonic()
    wanted, delay = lines(folder) + rng.randint(1, 3), rng.uniform(0.3, 1.5)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"an attempt ended by itself with status {status}"
            return None
        now = time.monotonic() - since
        assert now < TIMEOUT, f"no moment to kill at within {TIMEOUT} s"
        if {"instant": now > delay, "lines": lines(folder) >= wanted, "saving": now > 0.3 and saving(folder)}[kind]:
            break
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    unfinished = saving(folder)
    os.waitpid(child, 0)
    return kind, unfinished


def main(folder, seed, kills, steps, phases):
    folder, rng = pathlib.Path(folder), random.Random(seed)
    for name in ("unbroken", "killed"):
        shutil.rmtree(folder / name, ignore_errors=True)
    unbroken = start(folder / "unbroken", steps, phases)  # beside the others
    killed = []
    while len(killed) < kills:
        moment = kill(start(folder / "killed", steps, phases), folder / "killed", rng)
        if moment is None:
            break
        killed.append(moment)
    assert os.waitpid(start(folder / "killed", steps, phases), 0)[1] == 0
    assert os.waitpid(unbroken, 0)[1] == 0
    print(json.dumps({"kills": killed}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
