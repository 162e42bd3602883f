"""Study models side by side under every probe of robustness, and put what was found on one page.

    python -m experiments.study --workdir runs/study
    python -m experiments.study --workdir runs/study --config configs/robustness_study.py:models=runs/a+runs/b

Without --config it is that of configs/robustness_study.py, which trains four small models on digits first. Every model under every probe is a
cell, one JSON file in WORKDIR/cells named by a digest of weights, images, settings and versions: what is done is not done again, however the
study is changed; a killed AutoAttack goes on within its cell. A cell that cannot run says why, one that fails says how, and the others go on.
The folder gets study.json and study.html, which `python -m experiments.study --workdir DIR --page` draws again from the JSON alone.
"""
import json
import pathlib
import time

import jax
from absl import flags
from rich import progress as rich_progress

import vmamba_jax
from experiments.common import cli, machine, results
from experiments.robustness_study import cells, models
from experiments.robustness_study import probes as _study_probes
from vmamba_jax import parallel, reports

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "robustness_study.py"


def run(config, workdir, *, progress=True):
    """Run every cell of config.models and config.train x config.probes that is not done, and write study.json after each model.

    Returns the content of study.json.
    """
    workdir, since, mesh = cli.folder(workdir), time.perf_counter(), parallel.data_mesh()
    entries = [*models.trained(config, workdir, progress), *config.models]
    if not entries:
        raise cli.ConfigError("config.models is empty: expected runs, converted folders or NAME@FILE, joined by + in the config's argument")
    plain = json.loads(config.to_json_best_effort())
    probes = {name: config.probes[name] for name in plain["probes"]}  # a ConfigDict itself gives its names sorted
    study = {"config": plain, "versions": machine.versions(results.PACKAGES), "commit": results.commit(),
             "device": f"{jax.devices()[0].device_kind} x {len(jax.devices())}", "models": [], "cells": []}
    with cli.bar("study", len(entries) * len(probes), progress, rich_progress.MofNCompleteColumn()) as bar:
        for entry in entries:
            try:
                subject = models.read(entry, config)
            except cli.ConfigError as error:
                study["models"].append({"label": entry, "error": str(error)})
                study["cells"] += [_absent(workdir, name, entry, str(error)) for name in probes]
                bar.advance(0, len(probes))
                continue
            taken = [model["label"] for model in study["models"]]
            label = subject.label if subject.label not in taken else entry
            study["models"].append(subject.facts | {"label": label})
            study.setdefault("data", _data(subject.source))
            logits_fn = vmamba_jax.logits_fn(subject.classifier, parallel.replicate(subject.variables, mesh))
            for name, probe in probes.items():
                study["cells"].append(_cell(subject, logits_fn, name, probe, config, mesh, workdir, label, bar))
            results.save_json(workdir / "study.json", study)
    study["seconds"] = round(time.perf_counter() - since, 1)
    results.save_json(workdir / "study.json", study)
    return study


def _cell(subject, logits_fn, name, probe, config, mesh, workdir, label, bar):
    """Make one cell unless it is done; returns its line of study.json."""
    inputs = {"weights": subject.facts["weights"], "model": models.description(subject.classifier), "data": subject.source.fingerprint,
              "probe": json.loads(probe.to_json_best_effort()), "seed": config.seed, "example": config.example, "numerics": cells.numerics()}
    file, before = cells.path(workdir, name, inputs), bar.tasks[0].completed
    content = cells.finished(file)
    if content is None:
        def tell(share, word=""):
            bar.update(0, completed=before + share, description=" ".join(filter(None, (label, name, word))))
        tell(0.0)
        state, since = workdir / "state" / f"{file.stem}.npz", time.perf_counter()
        options = {"key": jax.random.key(config.seed), "batch_size": config.batch_size, "mesh": mesh}
        try:
            content = {"status": "done", **_study_probes.run(_study_probes.Bench(subject, logits_fn, options, config, state, tell), probe)}
        except _study_probes.NotApplicable as reason:
            content = {"status": "not applicable", "reason": str(reason)}
        except Exception as error:  # one cell's failure is a finding, and not the end of the grid
            content = {"status": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        content |= {"probe": name, "model": label, "inputs": inputs, "seconds": round(time.perf_counter() - since, 2)}
        results.save_json(file, content)
        if content["status"] == "done" and jax.process_index() == 0:
            state.unlink(missing_ok=True)
    bar.update(0, completed=before + 1)
    return {"model": label, "probe": name, "status": content["status"], "file": f"cells/{file.name}"}


def _absent(workdir, name, entry, reason):
    inputs = {"model": entry, "probe": name}
    file = cells.path(workdir, name, inputs)
    results.save_json(file, {"status": "not applicable", "reason": reason, "probe": name, "model": entry, "inputs": inputs})
    return {"model": entry, "probe": name, "status": "not applicable", "file": f"cells/{file.name}"}


def _data(source):
    return {"name": source.name, "split": source.split, "examples": len(source), "classes": len(source.classes), "shape": source.image_shape,
            "fingerprint": source.fingerprint[:16]}


def _own_config(argv):
    """Without --config, that of the small study."""
    return argv if cli.argument(argv, "config") is not None else [f"--config={CONFIG}", *argv]


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the JSON that is there")
    return ("page",)


def main(config, workdir, page):
    if not page:
        run(config, workdir)
    if jax.process_index() != 0:
        return
    with cli.checking("--page"):
        study = reports.read_study(workdir)
    path = reports.write_study(pathlib.Path(workdir) / "study.html", study, commands=[f"python -m experiments.study --workdir {workdir}"])
    print(f"{reports.study_text(study)}\n\nreport: {path}")


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags, complete=_own_config)
