"""Two small finished runs, written as the programs write them, with numbers that a test can look for."""
import json

import numpy as np

RADII = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
CURVES = {"standard": [0.981, 0.75, 0.372, 0.12, 0.034, 0.01, 0.0], "pgd_at": [0.984, 0.955, 0.91, 0.83, 0.692, 0.49, 0.31]}


def write(folder, name, *, examples=True, metrics=True):
    """Write one run of `CURVES` under folder/name; returns its folder."""
    folder, curve = folder / name, CURVES[name]
    folder.mkdir(parents=True)
    attack = {"label": "PGD-20, 5 restarts", "name": "pgd", "norm": "linf", "eps": 0.2, "robust_accuracy": curve[4]}
    fgsm = {"label": "FGSM", "name": "fgsm", "norm": "linf", "eps": 0.2, "robust_accuracy": curve[3]}
    evaluation = {
        "split": "test", "examples": 360, "accuracy": curve[0], "attacks": {"fgsm": fgsm, "pgd": attack}, "seed": 0,
        "curve": {"attack": "pgd", "label": attack["label"], "norm": "linf", "radii": RADII, "robust_accuracy": curve},
        "checkpoint": {"step": 330, "which": "best"}, "seconds": 12.5,
    }
    config = {"seed": 0, "epochs": 30, "model": {"name": "vmamba_tiny", "overrides": {"dims": [32, 64]}}, "objective": {"name": name}}
    results = {"seed": 0, "steps_per_epoch": 10, "versions": {"python": "3.11.7", "jax": "0.10.2"}, "device": "cpu x 2",
               "data": "digits", "commit": "0123abc", "finished": "2026-11-21T04:00:00+00:00"}
    for file, content in (("config", config), ("results", results), ("evaluation", evaluation)):
        (folder / f"{file}.json").write_text(json.dumps(content))
    if metrics:
        rows = [{"step": s, "loss": 2.3 * np.exp(-s / 80) + 0.05 * (name == "pgd_at")} for s in range(10, 301, 10)]
        rows += [{"step": s, "validation/accuracy": 0.98 - 0.5 * np.exp(-s / 60), "validation/robust_accuracy": curve[4] * s / 300}
                 for s in range(50, 301, 50)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 310, "lo')
    if examples:
        rng = np.random.default_rng(0)
        clean, labels = rng.uniform(size=(10, 8, 8, 1)).astype(np.float32), np.arange(10)
        wrong = (labels + (name == "standard")) % 10
        np.savez(folder / "examples.npz", clean=clean, adversarial=np.clip(clean + rng.choice([-0.2, 0.2], clean.shape), 0, 1), labels=labels,
                 clean_predictions=labels, adversarial_predictions=wrong, classes=np.array([str(i) for i in range(10)]), attack=attack["label"])
    return folder
