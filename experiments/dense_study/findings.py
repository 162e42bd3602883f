"""What the study of dense tasks measures of one run of a segmenter, saved as dense.json and dense.npz in the run's folder."""
import time

import jax
import numpy as np

import vmamba_jax
from experiments.common import cli, corrupted
from experiments.dense_study import measured
from vmamba_jax import attacks, evaluation, parallel
from vmamba_jax.core.images import unit_interval
from vmamba_jax.evaluation import dense

SCORES = ("mIoU", "aAcc", "mAcc", "interval", "IoU")


def evaluate(config, folder, study, *, group="", progress=True):
    """Measure the best checkpoint on the test split, unless dense.json has it.

    dense.json holds "clean", "attacks" (by name), "sea" (its parts and the worst case), "corruptions" (rows, mPC, rPC), "disturbances", and "worst": the
    test images of lowest mIoU alone, clean. dense.npz holds the first test images and the worst ones with labels and predictions, clean and under the
    first attack.

    Args:
        config: of the run.
        folder: the run's.
        study: of the sweep's config, as `configs.dense.probes` makes it.
        group: of the run in the sweep.
        progress: whether to print a line.
    """
    if (subject := measured.subject(config, folder, study, without=("detection_attacks",))) is None:
        return
    study, classifier, variables, train, test = subject.study, subject.classifier, subject.variables, subject.train, subject.test
    since, mesh = time.perf_counter(), parallel.data_mesh()
    fn = vmamba_jax.logits_fn(classifier, parallel.replicate(variables, mesh))
    key, options = jax.random.key(config.evaluation.seed), {"batch_size": config.evaluation.batch_size, "mesh": mesh}
    clean = dense.segmentation(fn, test, **options)
    alone = dense.image_scores(clean["confusion"])["mIoU"]
    worst = np.argsort(np.where(np.isnan(alone), 2, alone), kind="stable")[:study["worst"]].tolist()
    shown = [*range(min(config.evaluation.examples, len(test))), *worst]
    content = {"identity": subject.identity, "group": group, "seed": config.seed, "examples": len(test), "classes": list(test.classes), "clean": _scores(clean),
               "background": float(evaluation.segmentation.scores(_only_background(clean["confusion"]))["mIoU"]), "worst": worst,
               "worst_mIoU": [float(alone[i]) for i in worst], "attacks": {}, "disturbances": {}}
    adversarial = None
    for name, section in study["attacks"].items():
        with cli.checking(f"config.study.attacks.{name}"):
            attack = attacks.create(**section)
        found = dense.segmentation(fn, test, attack=attack, key=key, show=tuple(shown) if adversarial is None else (), **options)
        content["attacks"][name] = _scores(found) | {"settings": attack.settings}
        adversarial = found["adversarial"] if adversarial is None else adversarial
    if study["sea"]:
        attack = attacks.sea(**study["sea"], weights=dense.class_weights(train))
        found = dense.ensemble(fn, test, attack, key=key, **options)
        content["sea"] = {"parts": [_scores(part) | {"loss": part["loss"]} for part in found["parts"]], "eps": study["sea"]["eps"], "steps": study["sea"]["steps"],
                          "worst": {name: found["worst"][name] for name in ("mIoU", "aAcc", "interval")}}
    names = corrupted.names(study["corruptions"]["names"])
    content["corruptions"] = dense.corruption_scores(fn, test, key=key, corruptions=names, severities=study["corruptions"]["severities"],
                                                     clean=clean["mIoU"], **options) if names else None
    for name, section in study["disturbances"].items():
        with cli.checking(f"config.study.disturbances.{name}"):
            disturbance = evaluation.disturbances.create(**section)
        content["disturbances"][name] = _scores(dense.segmentation(fn, test, change=dense.disturbing(disturbance, key, **options), **options))
    images, labels = test.gather(np.array(shown))
    images = unit_interval(images)
    arrays = {"index": np.array(shown), "images": images, "labels": labels, "predictions": np.asarray(fn(images).argmax(-1))}
    if adversarial is not None:
        arrays |= {"adversarial": adversarial, "adversarial_predictions": np.asarray(fn(adversarial).argmax(-1))}
    arrays = {name: x.astype(np.uint8) if x.dtype.kind in "iu" and name != "index" else x for name, x in arrays.items()}
    measured.save(subject, content, arrays, since, progress and f"mIoU {clean['mIoU']:.3f}")


def _scores(found):
    """Scores as JSON: None for the IoU of a class that does not occur."""
    return {name: found[name] for name in SCORES if name != "IoU"} | {"IoU": [None if np.isnan(x) else float(x) for x in found["IoU"]]}


def _only_background(confusion):
    """The set's counts if class 0 were predicted everywhere."""
    total = confusion.sum(0, dtype=np.int64)
    only = np.zeros_like(total)
    only[:, 0] = total.sum(1)
    return only
