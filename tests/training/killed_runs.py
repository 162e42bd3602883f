"""A program that trains, for the tests that kill it: one process imports everything once and forks a child for every life of a run.

    python killed_runs.py FOLDER SEED KILLS STEPS

Trains once unbroken, in FOLDER/unbroken, then in FOLDER/killed, where a child is killed by SIGKILL at a moment drawn from SEED, KILLS times: after
some lines of metrics, at any instant, or while a save's unfinished folder stands there. The last life is left to finish. Prints a JSON object.
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
import orbax.checkpoint  # noqa: F401  imported here, once for all lives
from tiny import SHAPE, Classifier, Net, Toy

from vmamba_jax import training

PATIENCE = 120  # seconds for one life


def live(folder, steps):
    """One life: begins, or goes on with, the run in the folder."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    optimizer = training.optimizer.create("adamw", learning_rate=0.01)
    classifier = Classifier(Net("batch", dropout=0.3))
    step = training.objectives.standard(classifier, optimizer, ema_decay=0.8)
    state = training.create_state(classifier, optimizer, jax.random.key(0), SHAPE, ema_decay=0.8)
    final = training.train(
        step, state, Toy(), steps=steps, key=jax.random.key(1), workdir=folder, log_every=3, checkpoint_every=2, eval_every=5, progress=False,
        evaluate=lambda state, t: {"score": float(abs(state.params["Dense_0"]["kernel"]).sum())}, best_metric="score", best_mode="min")
    np.savez(folder / "final.npz", *map(np.asarray, jax.tree.leaves(final)))


def start(folder, steps):
    """The process number of a new life."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            live(folder, steps)
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
    """Kill the child at a moment of a kind drawn by `rng`. Returns (kind, whether a save was under way), or None where it had ended before."""
    kind, since = rng.choice(("instant", "lines", "saving")), time.monotonic()
    wanted, delay = lines(folder) + rng.randint(1, 3), rng.uniform(0.3, 1.5)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"a life ended by itself with status {status}"
            return None
        now = time.monotonic() - since
        assert now < PATIENCE, f"nothing to kill at in {PATIENCE} s"
        if {"instant": now > delay, "lines": lines(folder) >= wanted, "saving": now > 0.3 and saving(folder)}[kind]:
            break
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    under_way = saving(folder)
    os.waitpid(child, 0)
    return kind, under_way


def main(folder, seed, kills, steps):
    folder, rng = pathlib.Path(folder), random.Random(seed)
    for name in ("unbroken", "killed"):
        shutil.rmtree(folder / name, ignore_errors=True)
    assert os.waitpid(start(folder / "unbroken", steps), 0)[1] == 0
    deaths = []
    while len(deaths) < kills:
        death = kill(start(folder / "killed", steps), folder / "killed", rng)
        if death is None:
            break
        deaths.append(death)
    assert os.waitpid(start(folder / "killed", steps), 0)[1] == 0
    print(json.dumps({"deaths": deaths}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
