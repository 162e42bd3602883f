"""Stand-ins for the runs of the mender's study, with figures that depend on group and seed alone."""
import json
import pathlib

import numpy as np

from configs import mender
from tests.helpers import fake_sweep

STATES, BLOCKS, CLASSES = ("x", "c", "s", "y"), (0, 1), 3
CONFLICT = {"base": 0.5, "uncued": 0.9, "ce": 0.5, "external": 0.7, "internal": 0.5, "both": 0.7, "random_masks": 0.5}


def study(workdir, groups, seeds=(0, 1, 2), evaluate=None):
    """Run the sweep of these groups with stand-ins."""
    return fake_sweep.study(mender.get_config(), workdir, groups, seeds, evaluate or finding)


def finding(config, folder, *, progress=True):
    """Write evaluation.json and mender.json of one run."""
    folder = pathlib.Path(folder)
    fake_sweep.evaluate(config, folder)
    group, rng = folder.parent.name, np.random.default_rng([config.seed, 5])
    noise = lambda: float(rng.uniform(-0.01, 0.01))
    row = lambda accuracy: {"accuracy": accuracy, "accuracy_interval": [0.0, 1.0], "examples": 360}
    kinds = lambda a: {"external": {"score": a + noise(), "keep": 0.5, "drop": 0.5, "overlap": 0.3, "per_sample": a, "coverage": 0.2},
                       "internal": {"score": 10 * a + noise(), "product": 0.1, "density": 0.1, "homogeneity": 0.5, "by_class": [10 * a] * CLASSES,
                                    "by_direction": [10 * a]}}
    place = [(state, block) for block in BLOCKS for state in STATES]
    report = lambda first, second: {"alpha": 0.5, "beta": 0.3, "groups": {first: [0], second: [1]}, "classes": CLASSES,
                                    "rows": [{"state": state, "block": block, first: kinds(2.0 + 0.1 * i), second: kinds(1.0)} for i, (state, block) in enumerate(place)]}
    cue = 0.4 if group == "base" else 0.05
    content = {"conflict": row(CONFLICT.get(group, 0.5) + noise()), "plain": row(0.6), "location": report("simple", "difficult"),
               "attacked": report("clean", "attacked"), "seconds": 1.0, "identity": {},
               "cue": {f"{state}@{block}": {"cue": cue + noise(), "shape": 0.2, "cue_area": 0.04, "shape_area": 0.2} for state, block in place},
               "maps": {"index": [0, 1], "maps": {f"{state}@{block}": np.full((2, 4, 4), 0.5).tolist() for state, block in place}}}
    (folder / "mender.json").write_text(json.dumps(content))
