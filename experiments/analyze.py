"""See inside models: receptive fields, attention of scans and transformers over photos, statistics of hidden states, on one page.

    python -m experiments.analyze --config configs/analysis.py:model=vmamba_tiny+swin_tiny --config.data.root=photos --workdir runs/analysis
    python -m experiments.analyze --config configs/analysis.py:model=runs/own,data=cifar10 --config.steps="('initial','all')" --workdir runs/own_seen

One model and one part is a cell: a JSON file in WORKDIR/cells, and an .npz file with its maps, named by a digest of weights, images, settings and
versions. A finished cell is not computed again, so the same command resumes a killed analysis. A part that does not apply or fails records the reason,
and the analysis continues. The folder gets analysis.json and analysis.html; --page draws the page again from these files alone.
"""
import time

import jax
from absl import flags
from rich import progress as rich_progress

from experiments.common import build, cli, environment, limits, results
from experiments.robustness_study import cells
from experiments.robustness_study.probes import NotApplicable
from experiments.seeing import parts, subjects
from vmamba_jax import parallel, reports

REASON = 500  # characters of a failed cell's error


def run(config, workdir, *, progress=True, command=""):
    """Compute every unfinished cell of config.models x parts, and write analysis.json after each model.

    Args:
        config: ConfigDict such as configs/analysis.py returns, with every key of `configs.base.analysis`.
        workdir: the analysis' folder.
        progress: whether to draw the progress bar.
        command: shell line to record, which the page shows; "": none.

    Returns:
        The content of analysis.json.

    Raises:
        ConfigError: no models, or a value out of range.
    """
    limits.check_analysis(config)
    workdir, since = cli.folder(workdir), time.perf_counter()
    if not config.models:
        raise cli.ConfigError("config.models=(): expected catalog names, runs, converted folders or NAME@FILE, joined by + in the config's argument")
    index = {"config": results.plain(config), "command": command, "versions": environment.versions(), "commit": results.commit(),
             "device": f"{jax.devices()[0].device_kind} x {len(jax.devices())}", "models": [], "cells": []}
    with cli.bar("analysis", len(config.models) * len(config.parts), progress, rich_progress.MofNCompleteColumn()) as bar:
        for entry in config.models:
            try:
                found = subjects.read(entry, config)
            except cli.ConfigError as error:
                index["models"].append({"label": entry, "error": str(error)})
                found = []
            for model, whole in found:
                index["models"].append(model.facts)
                index.setdefault("data", {"name": model.source.name, "split": model.source.split, "examples": len(model.source)})
                index["cells"] += [_cell(model, name, config, workdir, bar) for name in config.parts if whole or name in parts.PER_CHECKPOINT]
            bar.advance(0, len(config.parts))
            results.save_json(workdir / "analysis.json", index)
    index["seconds"] = round(time.perf_counter() - since, 1)
    results.save_json(workdir / "analysis.json", index)
    return index


def _cell(model, name, config, workdir, bar):
    """Compute one cell unless it is done; returns its entry of analysis.json."""
    identity = results.identity(weights=model.facts["weights"], data=model.source.fingerprint,
                                settings={"model": build.description(model.classifier), "part": name, **results.plain(config[name])})
    file = cells.path(workdir, name, identity)
    content = cells.finished(file, identity)
    if content is None:
        bar.update(0, description=f"{model.label} {name}")
        since, arrays = time.perf_counter(), {}
        try:
            content, arrays = parts.PARTS[name](model, config[name], {"batch_size": config.batch_size, "mesh": parallel.data_mesh()})
            content = {"status": "done", **content}
        except NotApplicable as reason:
            content = {"status": "not applicable", "reason": str(reason)}
        except Exception as error:  # a failed cell is a finding; the others must still be computed
            content = {"status": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:REASON]}"}
        if arrays:
            results.save_arrays(file.with_suffix(".npz"), **arrays)
        content |= {"part": name, "model": model.label, "identity": identity, "seconds": round(time.perf_counter() - since, 2)}
        results.save_json(file, content)
    return {"model": model.label, "part": name, "status": content["status"], "file": f"cells/{file.name}"}


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved files")
    return ("page",)


def main(config, workdir, page):
    """Run the analysis unless `page`, write analysis.html, and print the contribution scores; a RunError if no cell is done."""
    if not page:
        run(config, workdir, command=cli.command("experiments.analyze"))
    if jax.process_index() != 0:
        return
    with cli.checking("--page"):
        found = reports.read_analysis(workdir)
        path = reports.write_analysis(workdir)
    if not any(cell["status"] == "done" for cell in found.cells):
        reasons = [model["error"] for model in found.index["models"] if "error" in model] + [cell.get("reason", "no reason") for cell in found.cells]
        raise cli.RunError(f"none of the {len(found.cells)} cells was computed: {reasons[0]}", list(dict.fromkeys(reasons[1:])))
    cli.report(f"{reports.analysis_text(found)}\n\npage: {path}")


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags)
