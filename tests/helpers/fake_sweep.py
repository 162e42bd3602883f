"""Stand-ins for training and evaluating one run, which write a run's files in a moment; importable by other processes."""
import json
import os
import pathlib
import signal
import sys
import time

import numpy as np

from configs import digits, sweeps
from experiments import sweep

STEPS = {"steps": 40, "steps_per_epoch": 10, "validation_attack": "PGD-10"}
SHIFT = {"standard": (0.975, 0.02), "pgd_at": (0.98, 0.69)}  # clean, robust


def accuracies(group, seed):
    """(clean, robust) accuracy of a run."""
    rng = np.random.default_rng([seed, len(group)])
    clean, robust = SHIFT.get(group, (0.9, 0.5))
    return round(clean + rng.uniform(-0.01, 0.01), 4), round(robust + rng.uniform(-0.02, 0.02), 4)


def plan(groups=("standard", "pgd_at"), seeds=(0, 1), **options):
    """A sweep over two objectives of the digits' config."""
    standard = digits.get_config("objective=standard")
    changes = {"standard": {"objective": standard.objective.to_dict(), "validation": standard.validation.to_dict()}}
    return sweeps.sweep(digits.get_config("objective=pgd_at"), runs={name: changes.get(name, {}) for name in groups}, seeds=seeds, **options)


def study(config, workdir, groups, seeds, evaluate):
    """Run these groups of a study's sweep, of which the first is the control, with `train` as a stand-in."""
    config.seeds, config.control = seeds, groups[0]
    for name in [name for name in config.runs if name not in groups]:
        del config.runs[name]
    return sweep.run(config, workdir, progress=False, train=train, evaluate=evaluate)


def train(config, folder, *, progress=True):
    """Write what `experiments.train.run` writes, and a line in calls.txt."""
    folder = pathlib.Path(folder)
    with open(folder / "calls.txt", "a") as file:
        file.write("train\n")
    if (folder / "results.json").is_file():
        return
    clean, robust = accuracies(group(folder), config.seed)
    rows = [{"step": step, "loss": 2.3 * np.exp(-step / 20), "accuracy": clean * step / 40} for step in range(10, 41, 10)]
    rows += [{"step": step, "validation/accuracy": clean * step / 40, "validation/robust_accuracy": robust * step / 40} for step in range(10, 41, 10)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(config.to_json())
    (folder / "results.json").write_text(json.dumps({"config": json.loads(config.to_json()), **STEPS}))
    (folder / "training.html").write_text("<!DOCTYPE html><title>training</title>")


def evaluate(config, folder, *, progress=True):
    """Write what `experiments.evaluate.run` writes."""
    clean, robust = accuracies(group(folder), config.seed)
    attack = {"label": "PGD-20, 3 restarts", "norm": "linf", "eps": config.evaluation.attacks.pgd.eps, "robust_accuracy": robust}
    (pathlib.Path(folder) / "evaluation.json").write_text(json.dumps({
        "split": "test", "examples": 360, "accuracy": clean, "attacks": {"pgd": attack},
        "curve": {"attack": "pgd", "label": attack["label"], "norm": "linf", "radii": [0.0, 0.2], "robust_accuracy": [clean, robust]}}))


def group(folder):
    """The group of a run's folder, which is WORKDIR/<group>/seed_<seed>."""
    folder = pathlib.Path(folder)
    return folder.parent.name if folder.name.startswith("seed_") else folder.name


def main(workdir, behavior, value):
    """For a process of its own: the sweep of `plan` with `train`, which "sleep"s value seconds, or "kill"s the process in its value-th run."""
    calls = []

    def run(config, folder, *, progress=True):
        calls.append(folder)
        train(config, folder)
        if behavior == "sleep":
            time.sleep(value)
        elif len(calls) == value:
            os.kill(os.getpid(), signal.SIGKILL)

    sweep.run(plan(), workdir, train=run, evaluate=evaluate, progress=False)
    print(len(calls))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
