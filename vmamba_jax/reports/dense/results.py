"""A study of dense tasks read from its folder: what was measured of each run, and scores over seeds."""
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vmamba_jax.core import files, statistics
from vmamba_jax.reports.displayed import Displayed

METRICS = {"segmentation": "mIoU", "detection": "mask_AP"}
FILE, IMAGES, INDEX = "dense.json", "dense.npz", "runs.json"


@dataclasses.dataclass(frozen=True)
class Found:
    """What one run has.

    Attributes:
        name, group, seed: of the run.
        content: of its dense.json.
        arrays: of its dense.npz; {} without one.
        curve: [(step, {metric: value}), ...] of its validations.
        results: of its results.json.
    """
    name: str
    group: str
    seed: int
    content: Mapping
    arrays: Mapping
    curve: Sequence
    results: Mapping

    @property
    def task(self):
        """"segmentation" or "detection"."""
        return self.content.get("task", "segmentation")

    @property
    def metric(self):
        """The score of the task: the mean IoU, or the AP of masks."""
        return METRICS[self.task]

    @property
    def scores(self):
        """{column: (score, its interval over images or None)}, all of the task's metric but rPC, in the order of the table."""
        found = {"clean": self._pair(self.content["clean"])}
        found |= {name: self._pair(each) for name, each in self.content["attacks"].items()}
        if self.content.get("sea"):
            found["SEA, worst case"] = self._pair(self.content["sea"]["worst"])
        if corruptions := self.content.get("corruptions"):
            found |= {"mPC": (corruptions["mPC"], None), "rPC": (corruptions["rPC"], None)}
        return found | {name: self._pair(each) for name, each in self.content["disturbances"].items()}

    def _pair(self, each):
        return each[self.metric], tuple(each["interval"])


@dataclasses.dataclass(frozen=True)
class Dense(Displayed):
    """A study: its config, and what its finished runs have.

    Attributes:
        folder: of the study.
        index: content of runs.json.
        found: `Found` of each run with a dense.json, in the config's order.
        missing: names of the other runs.
    """
    render_name = "render_dense"
    folder: pathlib.Path
    index: Mapping
    found: Sequence[Found]
    missing: Sequence[str]

    @property
    def groups(self):
        """{group: [its `Found`s, by seed]}."""
        groups = {}
        for each in self.found:
            groups.setdefault(each.group, []).append(each)
        return groups

    def of_task(self, task):
        """`groups` of one task."""
        return {group: runs for group, runs in self.groups.items() if runs[0].task == task}


def read_dense(folder) -> Dense:
    """The `Dense` study in a folder of `experiments.dense`.

    Raises:
        FileNotFoundError: no runs.json there. ValueError: a damaged file, by name.
    """
    folder = pathlib.Path(folder)
    index = files.read_json(folder / INDEX)
    if index is None:
        raise FileNotFoundError(f"{folder / INDEX}: expected the folder of a study of experiments.dense")
    found, missing = [], []
    for run in index["runs"]:
        content = files.read_json(folder / run["name"] / FILE)
        if content is None:
            missing.append(run["name"])
            continue
        found.append(Found(run["name"], run["group"], run["seed"], content, _arrays(folder / run["name"] / IMAGES), _curve(folder / run["name"]),
                           files.read_json(folder / run["name"] / "results.json") or {}))
    return Dense(folder, index, found, missing)


def over_seeds(group):
    """{column: {"n", "mean", "low", "high", "per"}} of the runs of a group.

    The interval is Student's over seeds; of one seed, that over images (`per` "images"), None where there is none.
    """
    rows = {}
    for name in group[0].scores:
        pairs = [each.scores[name] for each in group if name in each.scores]
        values = [value for value, _ in pairs]
        if len(values) > 1:
            rows[name] = statistics.mean_interval(values) | {"per": "seeds"}
        else:
            low, high = pairs[0][1] or (None, None)
            rows[name] = {"n": 1, "mean": values[0], "low": low, "high": high, "per": "images"}
    return rows


def _arrays(path):
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _curve(folder):
    path = folder / "metrics.jsonl"
    rows = files.read_json_lines(path) if path.is_file() else []
    return [(row["step"], row) for row in rows if any(f"validation/{metric}" in row for metric in METRICS.values())]
