"""Stand-ins for the runs of the dense study, with figures that depend on group and seed alone."""
import json

import numpy as np

from configs import dense
from experiments.common import results
from experiments.sweeps import plan
from vmamba_jax import data

SCORE = {"vmamba-standard": 0.6, "convnext-standard": 0.5}


def study(workdir, seeds=2, left_out=()):
    """Write the files of a study of two groups; `left_out`: names of runs without results."""
    made = dense.get_config(f"models=all,seeds={seeds}")
    for name in set(made.runs) - set(SCORE):
        del made.runs[name]
    planned = plan.expand(made)
    results.save_json(workdir / "runs.json", {"config": results.plain(made), "runs": [{"name": each.name, "group": each.group, "seed": each.seed} for each in planned]})
    source = data.load("dense_shapes", "test", size=16, examples=(1, 1, 4))
    for each in planned:
        folder = workdir / each.name
        folder.mkdir(parents=True)
        if each.name in left_out:
            continue
        base = SCORE[each.group] + 0.02 * each.seed
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
