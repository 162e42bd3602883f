"""The folder of a run's checkpoints as files: complete and damaged steps, steps set aside, and about.json."""
import contextlib
import math
import os
import pathlib
import shutil

from vmamba_jax.core import files
from vmamba_jax.core.saved_steps import checksums

ABOUT = "about.json"  # the metric that ranks the steps, and the run's config
REMOVED = ".removed"  # steps that are no longer kept; renamed into it and deleted once the newer step is on disk
NEEDED = ("_CHECKPOINT_METADATA", "state/_METADATA")  # files of every complete step


def read_about(directory):
    """The content of about.json; {} if there is none. ValueError if it is damaged."""
    content = files.read_json(directory / ABOUT)
    return {} if content is None else content


def write_about(directory, content):
    """Write about.json atomically."""
    files.write_json(directory / ABOUT, content)


def prepare(directory, about):
    """Create the folder, clear it of unfinished steps, set damaged ones aside, and write `about` to about.json; returns what was set aside, in words."""
    directory.mkdir(parents=True, exist_ok=True)
    known, told = read_about(directory), ""
    clear(directory)
    if found := damaged(directory, about["best_metric"]):
        told = f"{listed(directory, found)}; renamed to STEP.damaged"
        for step in found:
            set_aside(directory, step)
        known["damaged"] = [*known.get("damaged", ()), told]
    write_about(directory, {**known, **about})
    return told


def listed(directory, found):
    """{step: why} in words."""
    return "; ".join(f"step {step} of {directory}: {why}" for step, why in found.items())


def record_damage(directory, text):
    """Add a line to the damage that about.json lists."""
    known = read_about(directory)
    write_about(directory, {**known, "damaged": [*known.get("damaged", ()), text]})


def complete(directory):
    """Steps whose folder has its final name and all files that every step needs, ascending."""
    return sorted(int(folder.name) for folder in _steps(directory) if not unfinished(folder))


def unfinished(folder):
    """Whether a step folder lacks a file that every complete step has; False for a step that is being saved, which has no such folder yet."""
    return folder.is_dir() and not all((folder / name).exists() for name in NEEDED)


def damage(folder, best_metric=None):
    """Why a step cannot be listed or ranked, such as "its metrics cannot be read"; None if nothing is wrong with its small files.

    Args:
        folder: the step's.
        best_metric: metric that the step's metrics must have; None: any.
    """
    if lost := [name for name in NEEDED if not (folder / name).exists()]:
        return f"its file {lost[0]} is missing"
    if not _is_json(folder / "_CHECKPOINT_METADATA"):
        return "its file _CHECKPOINT_METADATA cannot be read"
    try:
        metrics = files.read_json(folder / "metrics" / "metrics")
    except ValueError:
        return "its metrics cannot be read"
    sums = _sums(folder)
    if metrics is None:
        return "its metrics are missing" if sums.get("metrics") is not None else None
    if not isinstance(metrics, dict) or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in metrics.values()):
        return "its metrics cannot be read"
    if "metrics" in sums and sums["metrics"] != checksums.of_json(metrics):
        return "its metrics differ from the saved ones"
    if best_metric is not None and not math.isfinite(metrics.get(best_metric, math.nan)):
        return f"its metrics lack a finite {best_metric}"
    return None


def damaged(directory, best_metric=None):
    """{step: why} of the steps with `damage`; empty folders, which hold nothing, are not among them."""
    found = {int(folder.name): damage(folder, best_metric) for folder in _steps(directory) if not _is_empty(folder)}
    return {step: why for step, why in sorted(found.items()) if why is not None}


def clear(directory):
    """Delete step folders without any file and the steps that are no longer kept."""
    for folder in _steps(directory):
        if _is_empty(folder):
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(directory / REMOVED, ignore_errors=True)


def set_aside(directory, step):
    """Rename a step's folder to STEP.damaged, or STEP.damaged.2 and so on if that exists; returns the new name."""
    names = (f"{step}.damaged" + (f".{i}" if i > 1 else "") for i in range(1, 10 ** 6))
    name = next(name for name in names if not (directory / name).exists())
    os.rename(directory / str(step), directory / name)
    files.sync(directory)
    return name


def listing(directory):
    """Every file of every step with its size: equal listings mean that no step came or went in between."""
    found = []
    for folder in sorted(_steps(directory)):
        with contextlib.suppress(OSError):  # deleted meanwhile
            found += sorted((str(path), path.stat().st_size) for path in folder.rglob("*") if path.is_file())
    return found


def sync(directory, step):
    """Flush a step's files and folders to the disk, so that a power loss leaves none of them empty."""
    folder = directory / str(step)
    for path in [*folder.rglob("*"), folder, directory]:
        files.sync(path)


def _steps(directory):
    return [path for path in pathlib.Path(directory).iterdir() if path.name.isdigit() and path.name == str(int(path.name)) and path.is_dir()]


def _is_empty(folder):
    return not any(path.is_file() for path in folder.rglob("*"))


def _is_json(path):
    try:
        return isinstance(files.read_json(path), dict)
    except ValueError:
        return False


def _sums(folder):
    """The step's saved checksums; {} if they cannot be read, which restoring the step reports."""
    with contextlib.suppress(ValueError):
        content = files.read_json(folder / "checksums" / "metadata")
        return content if isinstance(content, dict) else {}
    return {}
