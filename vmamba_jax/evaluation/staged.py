"""Robust accuracy under an attack of several stages: each stage attacks only the images that are still robust; a killed run resumes."""
import dataclasses
import math
import time

import jax
import numpy as np

from vmamba_jax import parallel
from vmamba_jax.attacks.autoattack.autoattack import check_stages
from vmamba_jax.core.closures import argument
from vmamba_jax.core.keys import fold_in, keys_at
from vmamba_jax.core.results import Rows
from vmamba_jax.core.run_folder import run_folder
from vmamba_jax.evaluation import state_file
from vmamba_jax.evaluation.loop import classify, on_mesh, over_set
from vmamba_jax.evaluation.sets import enter

ROBUST, MISCLASSIFIED = -1, -2  # in `broken_by`: no stage broke the image; misclassified without any attack


class Ledger:
    """The state of a run: arrays over the set and the stages begun; written to a file after every batch if a path is given.

    Attributes:
        broken_by: (n,) int16, the index of the stage that broke an image, ROBUST or MISCLASSIFIED.
        margin: (n,) float32, the highest max_{j != y} z_j - z_y found, without or with attack; positive for a broken image.
        attempted: (n,) bool, the images that the current stage has attacked.
        stages: a record per stage begun, {"name", "attacked", "broken", "seconds"}; the clean pass is stage "clean".
    """
    ARRAYS = ("broken_by", "margin", "attempted")

    def __init__(self, n, about, path=None):
        self.broken_by, self.margin = np.full(n, ROBUST, np.int16), np.full(n, -np.inf, np.float32)
        self.attempted, self.stages = np.zeros(n, bool), []
        self.identity, self.path = about, path and run_folder(path)
        if self.path and self.path.exists():
            self._load()

    @property
    def robust(self):
        return self.broken_by == ROBUST

    def begin(self, name):
        """Begin the next stage."""
        self.stages.append({"name": name, "attacked": int(self.robust.sum()), "broken": 0, "seconds": 0.0})
        self.attempted[:] = False

    def update(self, index, margin, correct, code):
        """Add a batch of the current stage: positions, margins and correctness (b,); misclassified images get `code` in `broken_by`."""
        self.margin[index] = np.fmax(self.margin[index], margin)
        self.broken_by[index[~correct]] = code
        self.attempted[index] = True
        self.stages[-1]["broken"] = int((self.broken_by == code).sum())

    def accuracies(self):
        """Accuracy without and with the attack so far; in the clean pass over the images seen."""
        seen = self.attempted if len(self.stages) == 1 else np.ones_like(self.attempted)
        mean = lambda mask: float(mask[seen].mean()) if seen.any() else 0.0
        return {"accuracy": mean(self.broken_by != MISCLASSIFIED), "robust_accuracy": mean(self.robust)}

    def _load(self):
        facts, found = state_file.read(self.path, {name: getattr(self, name) for name in self.ARRAYS}, self.identity, self._check)
        self.stages = facts["stages"]
        for name, array in found.items():
            setattr(self, name, array)

    def _check(self, facts):
        """Raise ValueError for stages that no run writes."""
        if not isinstance(facts["stages"], list):
            raise ValueError("its facts have another form")
        kinds = {"name": str, "attacked": int, "broken": int, "seconds": (int, float)}
        if not all(isinstance(stage, dict) and stage.keys() == kinds.keys() and all(isinstance(stage[k], kind) for k, kind in kinds.items())
                   for stage in facts["stages"]):
            raise ValueError("its stages have another form")

    def save(self):
        """Write the file, if there is one."""
        if self.path:
            state_file.write(self.path, {"identity": self.identity, "stages": self.stages}, {name: getattr(self, name) for name in self.ARRAYS})


def run(logits_fn, source, attack, key, loop, state=None, model_id=None):
    """`robust_accuracy` for an attack with `stages()`; arguments and result as there."""
    found = state_file.identify(logits_fn, source, attack.settings, key, model_id, state) if state else {}
    source = enter(logits_fn, source, loop)
    n = source.examples
    check(attack, source, max(_rows(loop.batch_size, n, loop.mesh.size) // loop.mesh.size, 1))
    passes = [("clean", None), *attack.stages()]
    ledger = Ledger(n, found, state)
    logits_fn, key = parallel.replicate((argument(logits_fn), key), loop.mesh)
    for number, (name, stage) in enumerate(passes):
        if number < len(ledger.stages) - 1:
            continue  # done before the run was stopped
        if number == len(ledger.stages):
            ledger.begin(name)
        record, since = ledger.stages[number], time.perf_counter()
        rows = dataclasses.replace(loop, batch_size=_rows(loop.batch_size, record["attacked"], loop.mesh.size))
        code = MISCLASSIFIED if stage is None else number - 1
        attack_batch = on_mesh(_attack_and_classify, (logits_fn, argument(stage), np.int32(number - 1)), rows, key)
        for index, outputs in over_set(attack_batch, source, rows, np.flatnonzero(ledger.robust & ~ledger.attempted)):
            ledger.update(index, outputs["margin"], outputs["correct"], code)
            record["seconds"], since = round(record["seconds"] + time.perf_counter() - since, 3), time.perf_counter()
            ledger.save()
            if loop.progress:
                done = (number + ledger.attempted.sum() / max(record["attacked"], 1)) / len(passes)
                loop.progress(int(done * n), n, ledger.accuracies() | {"stage": name, "robust": int(ledger.robust.sum())})
    ledger.save()
    lost = int(np.isneginf(ledger.margin).sum())
    return ledger.accuracies() | ({"not_finite": lost} if lost else {}) | {
        "correct": ledger.broken_by != MISCLASSIFIED, "robust": ledger.robust, "broken_by": ledger.broken_by, "margin": ledger.margin,
        "examples": n, "stages": ledger.stages, "attack": attack.settings}


def check(attack, source, rows=1):
    """Raise the error of any stage that the images or the classifier's number of classes do not allow, before any work.

    Args:
        attack: with `stages()`.
        source: the set after `sets.enter`.
        rows: images per call.
    """
    check_stages(attack.stages(), jax.ShapeDtypeStruct((rows, *source.image.shape), source.image.dtype), source.classes)


def _rows(batch_size, attacked, devices):
    """Rows of a stage's batches: batch_size, or for fewer images the next multiple of its 32nd part (of the devices, if they are more).

    So a stage with few images left takes little time, and every stage is compiled once.
    """
    step = -(-max(batch_size // 32, 1) // devices) * devices
    return min(batch_size, -(-max(attacked, 1) // step) * step)


def per_image(result) -> Rows:
    """[{"index", "broken_by", "margin"}] of a result of several stages, plain JSON.

    "broken_by" is the name of the stage that broke the image, "clean" for an image misclassified without attack, None for a robust image;
    "margin" the highest max_{j != y} z_j - z_y found, None if none was finite.
    """
    names = [stage["name"] for stage in result["stages"]]
    broken = [None if code == ROBUST else names[0 if code == MISCLASSIFIED else code + 1] for code in result["broken_by"].tolist()]
    margins = [round(margin, 6) if math.isfinite(margin) else None for margin in result["margin"].tolist()]
    return Rows({"index": i, "broken_by": name, "margin": margin} for i, (name, margin) in enumerate(zip(broken, margins, strict=True)))


def _attack_and_classify(tree, batch, key):
    logits_fn, stage, number = tree
    found = classify(logits_fn, batch, stage, fold_in(keys_at(key, batch["index"]), number))
    return {"correct": found["correct"], "margin": found["margin"]}
