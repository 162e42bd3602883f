"""Differences between evaluated runs: paired image by image where both were evaluated on the same images, else of independent samples."""
from typing import NamedTuple

import numpy as np

from vmamba_jax.core.results import Shown, Table
from vmamba_jax.core.statistics import differences_interval, gap_interval
from vmamba_jax.reports.tables import attack_name


class Differences(Shown, NamedTuple("_Differences", [("columns", list), ("rows", list)])):
    """What `table` returns."""

    def tables(self):
        """One table: a row for each run, and for each column the value and the ends of its interval."""
        ends = ("value", "low", "high")
        cells = [[run, paired, *(cell and cell[end] for cell in row for end in ends)] for run, paired, row in self.rows]
        return {"differences": Table("differences", ["run", "paired", *(name if end == "value" else f"{name}.{end}" for name in self.columns for end in ends)], cells)}


RIGHT = "right"  # entry of evaluation.json: which images were classified correctly, clean and attacked, as `packed` writes them


def packed(flags):
    """Booleans as text, eight in two hexadecimal digits."""
    return np.packbits(np.asarray(flags, bool)).tobytes().hex()


def unpacked(text, n):
    """The first n booleans of `packed` text."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=n).astype(bool)


def table(runs):
    """Accuracy of each run minus that of the first.

    Args:
        runs: `Run`s with an evaluation, in the order of the page.

    Returns:
        `Differences`: (columns, [(label, paired, [cell, ...]), ...]), one row for each run but the first: `paired` says whether both were evaluated on the same
        images, a cell is {"value", "low", "high"} in [-1, 1] with its 95 % interval, or None where one of them lacks the attack or its settings differ.
    """
    first, *others = runs
    names = {name: result for name, result in first.evaluation["attacks"].items() if any(_same(run, first, name) for run in others)}
    rows = [(run.label, same_images(run, first), [_cell(run, first, None)] + [_cell(run, first, name) if _same(run, first, name) else None for name in names])
            for run in others]
    return Differences(["clean", *(attack_name(result) for result in names.values())], rows)


def same_images(run, other):
    """Whether two runs were evaluated on the same images in the same order, and both say which of them were right."""
    found = [(each.evaluation.get("identity") or {}).get("data") for each in (run, other)]
    return found[0] is not None and found[0] == found[1] and all(RIGHT in each.evaluation for each in (run, other)) \
        and run.evaluation["examples"] == other.evaluation["examples"]


def _same(run, other, name):
    """Whether an attack of this name has the same settings in both runs."""
    pair = [each.evaluation["attacks"].get(name) for each in (run, other)]
    return all(pair) and pair[0].get("attack") == pair[1].get("attack")


def _cell(run, other, name):
    accuracies = [each.evaluation["accuracy"] if name is None else each.evaluation["attacks"][name]["robust_accuracy"] for each in (run, other)]
    examples = [each.evaluation["examples"] for each in (run, other)]
    key = name or "clean"
    if same_images(run, other) and all(key in each.evaluation[RIGHT] for each in (run, other)):
        flags = [unpacked(each.evaluation[RIGHT][key], examples[0]).astype(int) for each in (run, other)]
        low, high = differences_interval(flags[0] - flags[1])
    else:
        low, high = gap_interval(round(accuracies[0] * examples[0]), examples[0], round(accuracies[1] * examples[1]), examples[1])
    return {"value": accuracies[0] - accuracies[1], "low": low, "high": high}
