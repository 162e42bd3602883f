"""An attack of several stages over a set: each stage sees only what still stands, in full batches, and a killed run goes on where it was."""
import json
import math
import os
import pathlib
import time
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax import parallel
from vmamba_jax.attacks import losses
from vmamba_jax.core import files
from vmamba_jax.core.keys import fold_in
from vmamba_jax.data.source import digest
from vmamba_jax.evaluation.common import keys_of, mapped, right
from vmamba_jax.evaluation.loop import batches, reader

STANDING, WRONG = -1, -2  # in `broken_by`: nothing broke it; it was wrong before any attack


class Ledger:
    """What is known of every image: arrays over the set, and the stages gone through; kept in a file after every batch if one is named.

    Attributes:
        broken_by: (n,) int16, the stage that broke an image, STANDING or WRONG.
        margin: (n,) float32, the highest max_{j != y} z_j - z_y met so far, clean or attacked: positive once broken.
        attempted: (n,) bool, the images that the stage at hand has attacked.
        stages: one record for each stage begun, {"name", "attacked", "broken", "seconds"}; the clean pass is stage "clean".
    """
    ARRAYS = ("broken_by", "margin", "attempted")

    def __init__(self, n, identity, path=None):
        self.broken_by, self.margin = np.full(n, STANDING, np.int16), np.full(n, -np.inf, np.float32)
        self.attempted, self.stages = np.zeros(n, bool), []
        self.identity, self.path = identity, path and pathlib.Path(path)
        if self.path and self.path.exists():
            self._load()

    def begin(self, name):
        """Open the next stage."""
        self.stages.append({"name": name, "attacked": int((self.broken_by == STANDING).sum()), "broken": 0, "seconds": 0.0})
        self.attempted[:] = False

    def enter(self, index, margin, wrong, code):
        """A batch of the stage at hand: which images it attacked, how far it came, whom it broke."""
        self.margin[index] = np.fmax(self.margin[index], margin)
        self.broken_by[index[wrong]] = code
        self.attempted[index] = True
        self.stages[-1]["broken"] = int((self.broken_by == code).sum())

    def _load(self):
        try:
            with np.load(self.path, allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                found = {name: file[name] for name in self.ARRAYS}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"state={str(self.path)!r} is damaged or no state of an evaluation ({error}); remove it to begin anew") from error
        differing = sorted(name for name in self.identity.keys() | facts["identity"].keys() if self.identity.get(name) != facts["identity"].get(name))
        if differing:
            shown = "; ".join(f"{name}: {facts['identity'].get(name)!r} there, {self.identity.get(name)!r} here" for name in differing)
            raise ValueError(f"state={str(self.path)!r} is of another evaluation ({shown}); remove it to begin anew")
        self.stages = facts["stages"]
        for name, array in found.items():
            setattr(self, name, array)

    def save(self):
        """Write the file; process 0 alone."""
        if not self.path or jax.process_index():
            return
        with files.atomic(self.path) as part, open(part, "wb") as file:
            np.savez(file, facts=json.dumps({"identity": self.identity, "stages": self.stages}), **{name: getattr(self, name) for name in self.ARRAYS})
            file.flush()
            os.fsync(file.fileno())


def run(logits_fn, source, attack, key, batch_size, mesh, progress, state):
    """`robust_accuracy` for an attack with `stages()`; arguments and result as there."""
    n, stages = reader(source)[1], attack.stages()
    ledger = Ledger(n, _identity(logits_fn, source, attack, key) if state else {}, state)
    tree, key = parallel.replicate(logits_fn, mesh), parallel.replicate(key, mesh)
    passes = [("clean", None), *stages]
    for number, (name, stage) in enumerate(passes):
        if number < len(ledger.stages) - 1:
            continue  # done before the run was stopped
        if number == len(ledger.stages):
            ledger.begin(name)
        record, since = ledger.stages[number], time.perf_counter()
        waiting = np.flatnonzero((ledger.broken_by == STANDING) & ~ledger.attempted)
        for batch in batches(source, _rows(batch_size, record["attacked"], mesh.size), mesh, waiting):
            outputs = parallel.to_host(mapped(_attack_and_judge, mesh)((tree, stage, np.int32(number - 1)), batch, key))
            ledger.enter(outputs["index"], outputs["margin"], outputs["wrong"], number - 1 if stage is not None else WRONG)
            record["seconds"], since = round(record["seconds"] + time.perf_counter() - since, 3), time.perf_counter()
            ledger.save()
            if progress:
                share = (number + ledger.attempted.sum() / max(record["attacked"], 1)) / len(passes)
                standing = int((ledger.broken_by == STANDING).sum())
                progress(int(share * n), n, _accuracies(ledger) | {"stage": name, "standing": standing})
    ledger.save()
    return _accuracies(ledger) | {
        "correct": ledger.broken_by != WRONG, "robust": ledger.broken_by == STANDING, "broken_by": ledger.broken_by, "margin": ledger.margin,
        "examples": n, "stages": ledger.stages, "attack": attack.settings}


def _rows(batch_size, attacked, devices):
    """Rows of a stage's batches: batch_size, or for fewer images the next multiple of its sixteenth (of the devices, where they are more);
    a few survivors then cost little, and every stage is compiled once.
    """
    step = -(-max(batch_size // 16, 1) // devices) * devices
    return min(batch_size, -(-max(attacked, 1) // step) * step)


def per_image(result):
    """[{"index", "broken_by", "margin"}] of a result of several stages, plain JSON: the breaking stage's name, "clean" for an image that was
    wrong before, None where nothing broke it; the margin max_{j != y} z_j - z_y, the highest that was met, None where there was no finite one.
    """
    names = [stage["name"] for stage in result["stages"]]
    broken = [None if code == STANDING else names[0 if code == WRONG else code + 1] for code in result["broken_by"].tolist()]
    margins = [round(margin, 6) if math.isfinite(margin) else None for margin in result["margin"].tolist()]
    return [{"index": i, "broken_by": name, "margin": margin} for i, (name, margin) in enumerate(zip(broken, margins, strict=True))]


def _accuracies(ledger):
    seen = ledger.attempted if len(ledger.stages) == 1 else np.ones_like(ledger.attempted)
    share = lambda mask: float(mask[seen].mean()) if seen.any() else 0.0
    return {"accuracy": share(ledger.broken_by != WRONG), "robust_accuracy": share(ledger.broken_by == STANDING)}


def _identity(logits_fn, source, attack, key):
    """What a state must agree in with the run that continues it: the model's weights, the set, the attack, the key."""
    data = parallel.fingerprint(source) if isinstance(source, tuple) else getattr(source, "fingerprint", repr(source))
    return {"model": digest(str(jax.tree.structure(logits_fn)), parallel.fingerprint(logits_fn)), "data": data,
            "attack": json.loads(json.dumps(attack.settings)), "key": np.asarray(jax.random.key_data(key)).tolist()}


def _attack_and_judge(tree, batch, key):
    logits_fn, stage, number = tree
    images, labels, index = batch["image"], batch["label"], batch["index"]
    if stage is not None:
        images = stage(logits_fn, images, labels, fold_in(keys_of(key, index), number))
    logits = logits_fn(images)
    return {"index": index, "wrong": ~right(logits, labels), "margin": losses.margin(logits, labels).astype(jnp.float32)}
