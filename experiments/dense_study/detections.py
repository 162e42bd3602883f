"""What the study of dense tasks measures of one run of a detector, saved as dense.json and dense.npz in the run's folder."""
import functools
import time

import jax
import numpy as np

from experiments.common import cli, corrupted
from experiments.dense_study import measured
from vmamba_jax import attacks, evaluation, parallel
from vmamba_jax.core.images import unit_interval
from vmamba_jax.data.annotations import segment_mask
from vmamba_jax.evaluation import dense, detectors

SCORE = 0.5   # of the detections drawn
DRAWN = 6     # detections drawn of an image, at most
SCORES = ("AP", "AP50", "AP75")


def evaluate(config, folder, study, *, group="", progress=True):
    """As `findings.evaluate`, of a detector.

    dense.json holds "task": "detection", "clean", "attacks" (by name), "corruptions" (rows, mPC, rPC, of the mask AP), "disturbances", and "worst": the
    test images of lowest mask AP alone, clean. dense.npz holds the first test images and the worst ones with objects and detections, clean and under
    the first attack: boxes, labels, scores and masks in `DRAWN` places, or as many as an image has objects.
    """
    if (subject := measured.subject(config, folder, study, without=("attacks", "sea"))) is None:
        return
    study, detector, test, since, mesh = subject.study, subject.classifier, subject.test, time.perf_counter(), parallel.data_mesh()
    key, options = jax.random.key(config.evaluation.seed), {"batch_size": config.evaluation.batch_size, "mesh": mesh}
    measure = functools.partial(detectors.average_precision, detector, parallel.replicate(subject.variables, mesh), test, **options)
    clean, truth = measure(), detectors.annotations_of(test)
    alone = detectors.image_scores(truth, clean["detections"])
    worst = np.argsort(np.where(np.isnan(alone), 2, alone), kind="stable")[:study["worst"]].tolist()
    shown = [*range(min(config.evaluation.examples, len(test))), *worst]
    content = {"identity": subject.identity, "task": "detection", "group": group, "seed": config.seed, "examples": len(test),
               "classes": list(test.instance_classes), "clean": _scores(clean), "worst": worst, "worst_mask_AP": [float(alone[i]) for i in worst],
               "attacks": {}, "disturbances": {}}
    attacked = None
    for name, section in study["detection_attacks"].items():
        with cli.checking(f"config.study.detection_attacks.{name}"):
            attack = attacks.create(**section)
        found = measure(attack=attack, key=key, show=tuple(shown) if attacked is None else ())
        content["attacks"][name] = _scores(found) | {"settings": attack.settings}
        attacked = attacked or found
    names = corrupted.names(study["corruptions"]["names"])
    content["corruptions"] = detectors.corruption_scores(
        detector, subject.variables, test, key=key, corruptions=names, severities=study["corruptions"]["severities"], clean=clean["AP"], **options) if names else None
    for name, section in study["disturbances"].items():
        with cli.checking(f"config.study.disturbances.{name}"):
            disturbance = evaluation.disturbances.create(**section)
        content["disturbances"][name] = _scores(measure(change=dense.disturbing(disturbance, key, **options)))
    objects = [each | {"score": 1.0} for each in truth["annotations"]]
    size = test.image_shape[:2]
    arrays = {"index": np.array(shown), "images": unit_interval(test.gather(np.array(shown))[0])} | _drawn("objects", objects, shown, size, test.most_instances)
    arrays |= _drawn("detections", clean["detections"], shown, size, DRAWN)
    if attacked is not None:
        arrays |= {"adversarial": attacked["adversarial"]} | _drawn("adversarial_detections", attacked["detections"], shown, size, DRAWN)
    measured.save(subject, content, arrays, since, progress and f"box AP {clean['bbox']['AP']:.3f}, mask AP {clean['AP']:.3f}")


def _scores(found):
    return {f"{name}_{score}": found[kind][score] for name, kind in (("box", "bbox"), ("mask", "segm")) for score in SCORES} | {"interval": found["interval"]}


def _drawn(name, detections, shown, size, places):
    """{name_boxes (n, places, 4), name_labels, name_scores, name_masks (n, places, H, W)} of the images `shown`, the best first; a score of 0 is none."""
    arrays = {"boxes": np.zeros((len(shown), places, 4), np.float32), "labels": np.zeros((len(shown), places), np.int32),
              "scores": np.zeros((len(shown), places), np.float32), "masks": np.zeros((len(shown), places, *size), bool)}
    for row, image in enumerate(shown):
        found = sorted((each for each in detections if each["image_id"] == image and each["score"] >= SCORE), key=lambda each: -each["score"])
        for place, each in enumerate(found[:places]):
            x, y, width, height = each["bbox"]
            arrays["boxes"][row, place] = x, y, x + width, y + height
            arrays["labels"][row, place], arrays["scores"][row, place] = each["category_id"], each["score"]
            arrays["masks"][row, place] = segment_mask(name, each["segmentation"], *size)
    return {f"{name}_{part}": x for part, x in arrays.items()}
