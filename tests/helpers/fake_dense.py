"""Stand-ins for the runs of the dense study, with figures that depend on group and seed alone."""
import json

import numpy as np

from configs import dense
from experiments.common import results
from experiments.sweeps import plan
from vmamba_jax import data

SCORE = {"vmamba-standard": 0.6, "convnext-standard": 0.5}
DETECTOR = {"mask_rcnn_vmamba-standard": 0.4}


def study(workdir, seeds=2, left_out=(), detector=False):
    """Write the files of a study of two groups, or with `detector` of three; `left_out`: names of runs without results."""
    wanted = SCORE | (DETECTOR if detector else {})
    made = dense.get_config(f"models=all,seeds={seeds}")
    for name in set(made.runs) - set(wanted):
        del made.runs[name]
    planned = plan.expand(made)
    results.save_json(workdir / "runs.json", {"config": results.plain(made), "runs": [{"name": each.name, "group": each.group, "seed": each.seed} for each in planned]})
    source = data.load("dense_shapes", "test", size=16, examples=(1, 1, 4))
    for each in planned:
        folder = workdir / each.name
        folder.mkdir(parents=True)
        if each.name in left_out:
            continue
        base = wanted[each.group] + 0.02 * each.seed
        if each.group in DETECTOR:
            _detector(folder, each, base, source)
            continue
        score = lambda value: {"mIoU": value, "aAcc": value + 0.1, "mAcc": value, "interval": [value - 0.05, value + 0.05], "IoU": [value, value, value, None]}
        content = {"identity": {}, "group": each.group, "seed": each.seed, "examples": 4, "classes": list(source.classes), "clean": score(base), "background": 0.21,
                   "worst": [2], "worst_mIoU": [0.3], "attacks": {"pgd": score(base / 2) | {"settings": {"norm": "linf", "eps": 4 / 255, "steps": 10}}},
                   "sea": {"parts": [score(base / 4) | {"loss": "js_avg"}], "eps": 4 / 255, "steps": 10, "worst": score(base / 5)},
                   "corruptions": {"rows": [{"corruption": "fog", "severity": k, "mIoU": base - 0.1 * k, "interval": [0, 1]} for k in (1, 3)], "clean": base,
                                   "mPC": base - 0.2, "rPC": (base - 0.2) / base},
                   "disturbances": {"random, 25 %": score(base - 0.1)}, "seconds": 2.0, "device": "cpu x 1", "versions": {"jax": "1"}, "commit": "abc",
                   "data": {"name": "dense_shapes", "fingerprint": "12"}}
        (folder / "dense.json").write_text(json.dumps(content))
        images, labels = source.gather([0, 2])
        wrong = np.zeros_like(labels)
        np.savez(folder / "dense.npz", index=[0, 2], images=images / np.float32(255), labels=labels, predictions=labels, adversarial=images / np.float32(255),
                 adversarial_predictions=wrong)
        (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": k, "validation/mIoU": base * k / 8, "validation/robust_mIoU": base * k / 16}) + "\n"
                                                      for k in (4, 8)))
        (folder / "results.json").write_text(json.dumps({"parameters": 187_136, "seconds": 30.0}))
    return made


def _detector(folder, each, base, source):
    """The files of a run of a detector that finds every object, and none on attacked images."""
    score = lambda value: {f"{kind}_{name}": value for kind in ("box", "mask") for name in ("AP", "AP50", "AP75")} | {"interval": [value - 0.05, value + 0.05]}
    content = {"identity": {}, "task": "detection", "group": each.group, "seed": each.seed, "examples": 4, "classes": list(source.instance_classes),
               "clean": score(base), "worst": [2], "worst_mask_AP": [0.25], "attacks": {"pgd": score(base / 2) | {"settings": {"norm": "linf", "eps": 4 / 255, "steps": 10}}},
               "corruptions": {"rows": [{"corruption": "fog", "severity": 3, "AP": base - 0.1, "interval": None}], "clean": base, "mPC": base - 0.1, "rPC": 0.75},
               "disturbances": {}, "seconds": 2.0, "device": "cpu x 1", "versions": {"jax": "1"}, "commit": "abc", "data": {"name": "dense_shapes", "fingerprint": "12"}}
    (folder / "dense.json").write_text(json.dumps(content))
    examples = [source.example(i) for i in (0, 2)]
    places = max(len(found["classes"]) for found in examples)
    pad = lambda x: np.concatenate([x, np.zeros((places - len(x), *x.shape[1:]), x.dtype)])
    parts = {"boxes": [pad(found["boxes"]) for found in examples], "labels": [pad(found["classes"]) for found in examples],
             "masks": [pad(found["masks"]) for found in examples], "scores": [pad(np.ones(len(found["classes"]), np.float32)) for found in examples]}
    images = np.stack([found["image"] for found in examples]) / np.float32(255)
    arrays = {f"{name}_{part}": np.stack(x) for part, x in parts.items() for name in ("objects", "detections")}
    arrays |= {f"adversarial_detections_{part}": 0 * np.stack(x) for part, x in parts.items()}
    arrays["adversarial_detections_masks"] = arrays["adversarial_detections_masks"].astype(bool)
    np.savez(folder / "dense.npz", index=[0, 2], images=images, adversarial=images, **arrays)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 4, "validation/mask_AP": base, "validation/robust_mask_AP": base / 2}) + "\n")
    (folder / "results.json").write_text(json.dumps({"parameters": 160_000, "seconds": 30.0}))
