"""Study several models under every robustness probe, and write the results on one page.

    python -m experiments.study --workdir runs/study
    python -m experiments.study --workdir runs/study --config configs/robustness_study.py:models=runs/a+runs/b

Without --config, the config is configs/robustness_study.py, which trains five small models on digits first. One model under one probe is a cell, a
JSON file in WORKDIR/cells named by a digest of weights, images, settings and versions: a finished cell is not computed again, however the study
changes, and a killed AutoAttack resumes within its cell. A cell that does not apply or fails records the reason, and the study continues.
The folder gets study.json and study.html; `python -m experiments.study --workdir DIR --page` draws the page again from the JSON alone.
"""
import pathlib
import shlex
import time

import jax
from absl import flags
from rich import progress as rich_progress

import vmamba_jax
from experiments.common import build, cli, environment, limits, results
from experiments.robustness_study import cells, models, probes
from vmamba_jax import parallel, reports

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "robustness_study.py"
SHOWN = 10     # reasons on the terminal of a study that computed nothing
REASON = 500  # characters of a failed cell's error


def run(config, workdir, *, progress=True, command=""):
    """Compute every unfinished cell of (config.models and config.train) x config.probes, and write study.json after each model.

    Args:
        config: ConfigDict such as configs/robustness_study.py returns, with every key of `configs.base.study`.
        workdir: the study's folder.
        progress: whether to draw the progress bar.
        command: shell line to record, which the page shows; "": none.

    Returns:
        The content of study.json.

    Raises:
        ConfigError: no models.
    """
    limits.check_study(config)
    workdir, since, mesh = cli.folder(workdir), time.perf_counter(), parallel.data_mesh()
    entries = [*models.trained(config, workdir, progress), *config.models]
    if not entries:
        raise cli.ConfigError("config.models=(): expected runs, converted folders or NAME@FILE, joined by + in the config's argument")
    plain = results.plain(config)
    settings = {name: config.probes[name] for name in plain["probes"]}  # in the config's order, which iterating a ConfigDict does not keep
    study = {"config": plain, "command": command, "versions": environment.versions(), "commit": results.commit(),
             "device": f"{jax.devices()[0].device_kind} x {len(jax.devices())}", "models": [], "cells": []}
    with cli.bar("study", len(entries) * len(settings), progress, rich_progress.MofNCompleteColumn()) as bar:
        for entry in entries:
            try:
                model = models.read(entry, config)
            except cli.ConfigError as error:
                study["models"].append({"label": entry, "error": str(error)})
                study["cells"] += [_absent(workdir, name, entry, str(error)) for name in settings]
                bar.advance(0, len(settings))
                continue
            taken = [each["label"] for each in study["models"]]
            label = model.label if model.label not in taken else entry
            study["models"].append(model.facts | {"label": label})
            study.setdefault("data", _data(model.source))
            logits_fn = vmamba_jax.logits_fn(model.classifier, parallel.replicate(model.variables, mesh))
            for name, probe in settings.items():
                study["cells"].append(_cell(model, logits_fn, name, probe, config, mesh, workdir, label, bar))
            results.save_json(workdir / "study.json", study)
    study["seconds"] = round(time.perf_counter() - since, 1)
    results.save_json(workdir / "study.json", study)
    return study


def _cell(model, logits_fn, name, probe, config, mesh, workdir, label, bar):
    """Compute one cell unless it is done; returns its entry of study.json."""
    identity = results.identity(weights=model.facts["weights"], data=model.source.fingerprint, settings={
        "model": build.description(model.classifier), "probe": results.plain(probe), "seed": config.seed, "example": config.example})
    file, before = cells.path(workdir, name, identity), bar.tasks[0].completed
    content = cells.finished(file, identity)
    if content is None:
        cells.note_changes(file, label, identity, cli.report)
        def report(fraction, text=""):
            bar.update(0, completed=before + fraction, description=" ".join(filter(None, (label, name, text))))
        report(0.0)
        state, since = workdir / "state" / f"{file.stem}.npz", time.perf_counter()
        options = {"key": jax.random.key(config.seed), "batch_size": config.batch_size, "mesh": mesh}
        try:
            content = {"status": "done", **probes.run(probes.ProbeContext(model, logits_fn, options, config, state, report), probe)}
        except probes.NotApplicable as reason:
            content = {"status": "not applicable", "reason": str(reason)}
        except Exception as error:  # a failed cell is a finding; the others must still be computed
            content = {"status": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:REASON]}"}
        content |= {"probe": name, "model": label, "identity": identity, "seconds": round(time.perf_counter() - since, 2)}
        results.save_json(file, content)
        if content["status"] == "done" and jax.process_index() == 0:
            state.unlink(missing_ok=True)
    bar.update(0, completed=before + 1)
    return {"model": label, "probe": name, "status": content["status"], "file": f"cells/{file.name}"}


def _absent(workdir, name, entry, reason):
    """Write the cell of a model that cannot be read; returns its entry of study.json."""
    file = cells.path(workdir, name, {"model": entry, "probe": name})
    results.save_json(file, {"status": "not applicable", "reason": reason, "probe": name, "model": entry})
    return {"model": entry, "probe": name, "status": "not applicable", "file": f"cells/{file.name}"}


def _data(source):
    return {"name": source.name, "split": source.split, "examples": len(source), "classes": len(source.classes), "shape": source.image_shape,
            "fingerprint": source.fingerprint[:16]}


def _own_config(argv):
    """The arguments with configs/robustness_study.py, if they name no config."""
    return argv if cli.argument(argv, "config") is not None else [f"--config={CONFIG}", *argv]


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved JSON")
    return ("page",)


def unmeasured(study):
    """[one line for each model or reason] of a study without a single finished cell; [] if there is one."""
    lines = study.index["cells"]
    if any(line["status"] == "done" for line in lines):
        return []
    failed = {model["label"]: model["error"] for model in study.index["models"] if "error" in model}
    reasons = [f"{cell['model']}: {cell.get('reason', 'no reason')}" for line in lines if line["model"] not in failed
               for cell in [study.cell(line["model"], line["probe"])]]
    return list(dict.fromkeys([*(f"{label}: {error}" for label, error in failed.items()), *reasons]))


def main(config, workdir, page):
    """Run the study unless `page`, write study.html, and print the skipped models, the table and the page's path; a RunError if no cell is done."""
    if not page:
        run(config, workdir, command=cli.command("experiments.study"))
    if jax.process_index() != 0:
        return
    with cli.checking("--page"):
        study = reports.read_study(workdir)
    path = reports.write_study(pathlib.Path(workdir) / "study.html", study,
                               commands=[study.index.get("command") or f"{cli.invocation('study')} --workdir {shlex.quote(str(workdir))}"])
    if reasons := unmeasured(study):
        raise cli.RunError(f"none of the {len(study.index['cells'])} cells was computed: {reasons[0]}", reasons[1:SHOWN])
    for model in study.index["models"]:
        if "error" in model:
            cli.report(f"skipped {model['label']}: {model['error']}")
    cli.report(f"{reports.study_text(study)}\n\nreport: {path}")


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags, complete=_own_config)
