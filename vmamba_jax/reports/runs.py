"""One run, read back from its folder."""
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vmamba_jax.core import files


@dataclasses.dataclass(frozen=True)
class Run:
    """What one folder holds. label: how the report calls it; metrics, timing: rows in the order written; examples: arrays, maybe none."""
    label: str
    folder: pathlib.Path
    config: Mapping
    metrics: Sequence[Mapping]
    results: Mapping
    evaluation: Mapping
    examples: Mapping
    timing: Sequence[Mapping] = ()

    def series(self, key):
        """(steps, values) of every row of metrics or timing that holds `key`, the later row winning where a step was logged twice."""
        found = {row["step"]: row[key] for row in (*self.metrics, *self.timing) if row.get(key) is not None}
        return list(found), list(found.values())

    @property
    def headline(self):
        """The attack result that the report's first sentence is about: the one the curve follows."""
        return self.evaluation["attacks"][self.evaluation["curve"]["attack"]]


def read_run(folder, label=None, evaluated=True, examples=True):
    """Read a finished run.

    folder: holds evaluation.json; config.json, metrics.jsonl, timing.jsonl, results.json and examples.npz where it was trained here.
    label: how to call it; by default the folder's name. evaluated=False: a training is enough. Raises FileNotFoundError where what is needed is
    missing.
    """
    folder = pathlib.Path(folder)
    if not evaluated and not (folder / "metrics.jsonl").is_file():
        raise FileNotFoundError(f"{folder} holds no metrics.jsonl: run `python -m experiments.train --workdir {folder}` first")
    if evaluated and not (folder / "evaluation.json").is_file():
        raise FileNotFoundError(f"{folder} holds no evaluation.json: run `python -m experiments.evaluate --workdir {folder}` first")
    return Run(label or folder.name, folder, _json(folder / "config.json"), _json_lines(folder / "metrics.jsonl"),
               _json(folder / "results.json"), _json(folder / "evaluation.json"),
               _arrays(folder / "examples.npz") if examples else {},
               _json_lines(folder / "timing.jsonl"))


def _json(path):
    return json.loads(path.read_text()) if path.is_file() else {}


def _json_lines(path):
    return files.read_json_lines(path) if path.is_file() else []


def _arrays(path):
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}
