"""One run, read from its folder."""
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from vmamba_jax.core import files, zip_files
from vmamba_jax.core.run_folder import RemotePath, local_copy, run_folder
from vmamba_jax.reports.displayed import Displayed


@dataclasses.dataclass(frozen=True)
class Run(Displayed):
    """Contents of one run's folder.

    Attributes:
        label: name on the page.
        config, results, evaluation: contents of config.json, results.json, evaluation.json; {} for a missing file.
        metrics, timing: rows of metrics.jsonl and timing.jsonl, in the order written.
        examples: arrays of examples.npz, {} if there are none.
    """
    label: str
    folder: pathlib.Path | RemotePath
    config: Mapping
    metrics: Sequence[Mapping]
    results: Mapping
    evaluation: Mapping
    examples: Mapping
    timing: Sequence[Mapping] = ()

    def html(self):
        """The page of its evaluation, or of its training if it has none."""
        from vmamba_jax import reports
        return reports.render([self], title=self.label) if self.evaluation else reports.render_training(self)

    def series(self, key):
        """(steps, values) of every row of metrics or timing that has `key`; of two rows of one step, the later one counts."""
        found = {row["step"]: row[key] for row in (*self.metrics, *self.timing) if row.get(key) is not None}
        return list(found), list(found.values())

    @property
    def headline(self):
        """The result of the attack that the accuracy curve uses; the report leads with it. None for an evaluation without attacks."""
        curve = self.evaluation["curve"]
        return self.evaluation["attacks"][curve["attack"]] if curve else None


def read_run(folder, label=None, evaluated=True, examples=True) -> Run:
    """Read a run.

    Args:
        folder: holds evaluation.json and, if the run was trained here, config.json, metrics.jsonl, timing.jsonl, results.json and examples.npz.
        label: name on the page; None: the folder's name.
        evaluated: whether evaluation.json is required; if not, metrics.jsonl is.
        examples: whether to read examples.npz.

    Raises:
        FileNotFoundError: the required file is missing.
        ValueError: a file is damaged.
    """
    folder = run_folder(folder)
    if not evaluated and not (folder / "metrics.jsonl").is_file():
        raise FileNotFoundError(f"folder={folder}: expected metrics.jsonl in it; run `python -m experiments.train --workdir {folder}` first")
    if evaluated and not (folder / "evaluation.json").is_file():
        raise FileNotFoundError(f"folder={folder}: expected evaluation.json in it; run `python -m experiments.evaluate --workdir {folder}` first")
    return Run(label or folder.name, folder, _json(folder / "config.json"), _json_lines(folder / "metrics.jsonl"),
               _json(folder / "results.json"), _json(folder / "evaluation.json"), _arrays(folder / "examples.npz") if examples else {},
               _json_lines(folder / "timing.jsonl"))


def _json(path):
    return files.read_json(path) or {}


def _json_lines(path):
    return files.read_json_lines(path) if path.is_file() else []


def _arrays(path):
    if not path.is_file():
        return {}
    with local_copy(path) as local:
        return zip_files.read_npz(local)
