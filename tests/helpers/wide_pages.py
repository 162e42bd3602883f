"""Pages of eight models, from the stand-ins for a run and for a study: more than a printed page holds side by side."""
import dataclasses
import itertools

from tests.helpers import fake_runs, fake_study
from vmamba_jax import reports
from vmamba_jax.core.corruption_errors import ALEXNET, SEVERITIES

MODELS = 8
LONG = "a_model_with_a_rather_long_name"


def runs(folder, mce=None):
    """Eight runs with everything that an evaluation can have; accuracy under a corruption falls by 10 points with each severity."""
    first = reports.read_run(fake_runs.write(folder, "pgd_at"))
    rows = [{"corruption": name, "severity": severity, "accuracy": 0.9 - 0.1 * severity} for name in ALEXNET for severity in SEVERITIES]
    measured = {"corruptions": {"rows": rows, "accuracy": 0.6, "mce": mce},
                "calibration": {"accuracy": 0.9, "confidence": 0.8, "ece": 0.1, "adaptive_ece": 0.12, "bins": [{}] * 15},
                "states": {"blocks": [{"skip": {"mean": 0.3, "low": 0.2, "high": 0.4}}] * 2, "examples": 64}}
    results = dict(first.results) | {"schedule": {"ramp": 100}}
    return [dataclasses.replace(first, label=f"{LONG}_{i}" if i % 3 == 0 else f"model_{i}", evaluation=dict(first.evaluation) | measured, results=results)
            for i in range(MODELS)]


def study(folder, probes=fake_study.PROBES):
    """A study of eight models, twice those of `fake_study`."""
    found = reports.read_study(fake_study.write(folder, probes))
    models, cells = [], {}
    for model, copy in itertools.product(found.models, (1, 2)):
        label = f"{model['label']}-{copy}"
        models.append(model | {"label": label})
        cells |= {(label, probe): cell for (name, probe), cell in found.cells.items() if name == model["label"]}
    return dataclasses.replace(found, index=found.index | {"models": models}, cells=cells)
