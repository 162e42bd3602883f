"""A study of three models, written as `experiments.study` writes it, with figures that a test can look for."""
import base64
import io
import json

import numpy as np
from PIL import Image

N = 200
MODELS = (("vmamba_s", "VMamba", "state space", 50_000), ("vmamba_l", "VMamba", "state space", 120_000), ("swin", "Swin", "transformer", 60_000),
          ("resnet", "ResNet", "convolution", 40_000))
PROBES = {
    "clean": {"kind": "clean"},
    "fgsm": {"kind": "attack", "attack": {"name": "fgsm", "eps": 1 / 255}},
    "patch_fool_2": {"kind": "attack", "attack": {"name": "patch_fool", "patches": 2}},
    "budget": {"kind": "curve", "attack": {"name": "pgd", "eps": 8 / 255}},
    "corruption_fog": {"kind": "corruption", "corruption": "fog"},
    "imagenet_a": {"kind": "shift", "shift": "imagenet_a"},
    "components": {"kind": "components", "blocks": ""},
    "components_by_stage": {"kind": "components", "blocks": "stages"},
    "drop_rows": {"kind": "disturbance", "group": "information_drop", "title": "sequential, rows"},
    "patch_drop_random": {"kind": "disturbance", "group": "patch_drop", "title": "random"},
    "shuffle": {"kind": "disturbance", "group": "shuffle", "title": "patches shuffled"},
    "trajectory": {"kind": "trajectory"},
    "centre": {"kind": "centre"}}


def row(count, **facts):
    """A row in which the first `count` of the images are right."""
    right = np.arange(N) < count
    return facts | {"accuracy": count / N, "interval": [max(0, count / N - 0.05), min(1, count / N + 0.05)], "examples": N,
                    "right": np.packbits(right).tobytes().hex()}


def picture(read, right):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(buffer, "PNG")
    return {"uri": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), "read": read, "right": right, "label": ""}


def cell(i, name, kind):
    """Model i's cell: VMambas are right on 40 and 42 % under FGSM where Swin is on 20 %."""
    shown = {"pictures": [picture("7", True), picture("1", False)]}
    match name:
        case "clean":
            return {"rows": [row(190 - i)], **shown}
        case "fgsm" | "patch_fool_2":
            return {"rows": [row((80, 84, 40, 60)[i])], "label": "FGSM" if name == "fgsm" else "Patch-Fool-50", **shown}
        case "budget":
            return {"rows": [row(150 - 60 * k - 10 * i, x=eps) for k, eps in enumerate((0.01, 0.02))], "label": "PGD-20"}
        case "components" | "components_by_stage":
            places = [None] if name == "components" else [[0], [1]]
            change = {"B": 40, "C": 30, "delta": -1}
            return {"accuracy": 0.4, "examples": N, "rows": [
                {"component": part, "blocks": place, "accuracy": 0.4 + d / N, "difference": d / N, "interval": [d / N - 0.05, d / N + 0.05],
                 "gained": max(d, 0), "lost": max(-d, 0)} for part, d in change.items() for place in places]}
        case "trajectory":
            return {"rows": [row(100, x="scan: snake"), row(60, x="image: random")]}
        case "centre":
            return {"map": [[0.1, 0.2, 0.1], [0.2, 0.5, 0.2], [0.1, 0.2, 0.1]], "window": 4, "stride": 2, "shape": [8, 8, 1],
                    "slope": -0.3, "slope_error": 0.05, "tops": [0, 2, 4], "lefts": [0, 2, 4],
                    "rings": [{"ring": 0, "radius": 0.0, "drop": 0.5}, {"ring": 1, "radius": 2.0, "drop": 0.15}], "rows": [], **shown}
    steps = ("2x2", "4x4") if name == "shuffle" else (1, 2)
    return {"rows": [row(150 - 50 * k - (i < 2) * 40, x=x, drop=0.2 + 0.3 * k + (i < 2) * 0.2, lost=40 + 60 * k + (i < 2) * 40, gained=0)
                     for k, x in enumerate(steps)], **shown}


def write(folder, probes=PROBES):
    """Write study.json and its cells; returns the folder."""
    (folder / "cells").mkdir(parents=True)
    lines = []
    for i, (label, _, kind, _) in enumerate(MODELS):
        for name in probes:
            content = {"probe": name, "model": label, "seconds": 1.5, "status": "done"}
            if name.startswith("components") and kind != "state space":
                content |= {"status": "not applicable", "reason": "it has no selective scan"}
            elif name == "imagenet_a":
                content |= {"status": "not applicable", "reason": "no ImageNet-A folder given"}
            elif (label, name) == ("resnet", "corruption_fog"):
                content |= {"status": "failed", "reason": "ValueError: <fog> too thick"}
            else:
                content |= cell(i, name, kind)
            file = f"cells/{name}-{i}.json"
            (folder / file).write_text(json.dumps(content))
            lines.append({"model": label, "probe": name, "status": content["status"], "file": file})
    models = [{"label": label, "family": family, "kind": kind, "parameters": parameters, "depths": [1, 1], "from": "runs", "weights": "0" * 64}
              for label, family, kind, parameters in MODELS]
    index = {"config": {"seed": 0, "margin": 0.03, "probes": probes}, "versions": {"python": "3.11.7", "jax": "0.10.2"}, "commit": "0123abc",
             "device": "cpu x 2", "models": [*models, {"label": "lost", "error": "model 'lost': no checkpoint here"}], "cells": lines,
             "data": {"name": "digits", "split": "test", "examples": N, "classes": 10, "shape": [8, 8, 1], "fingerprint": "abcdef"}}
    (folder / "study.json").write_text(json.dumps(index))
    return folder
