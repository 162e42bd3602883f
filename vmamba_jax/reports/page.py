"""One self-contained HTML page about one or more evaluated runs: it loads nothing from anywhere."""
import functools
import itertools
import os
import pathlib
import urllib.parse

import jinja2
import numpy as np

from vmamba_jax.core import files
from vmamba_jax.core.run_folder import RemotePath, run_folder
from vmamba_jax.reports import contents, corruption_tables, differences, exports, figures, grids, tables


def render(runs, *, title, about="", commands=(), folder="."):
    """The page as text.

    Args:
        runs: `Run`s in the order of the page.
        title, about: heading and first paragraph.
        commands: shell lines that reproduce it.
        folder: the page's folder; links to the raw files are relative to it.
    """
    against = differences.table(runs) if len(runs) > 1 else ([], [])
    return draw(
        "report.html", title=title, about=about, headline=headline(runs), accuracy=grids.by_probe(*tables.accuracy(runs)),
        against=grids.by_probe(against[0], [(label if paired else f"{label} (other images)", cells) for label, paired, cells in against[1]]),
        unpaired=not all(paired for _, paired, _ in against[1]),
        robustness=figures.robustness(attacked) if (attacked := [run for run in runs if run.headline]) else "", corrupted=tables.corruptions(runs),
        means=corruption_tables.means(runs), calibrated=_calibration(runs), around=_around(runs),
        training=figures.training_curves([run for run in runs if run.metrics]) if runs[0].metrics else "",
        examples=[_examples(run) for run in runs if run.examples],
        **reproduction(runs, commands, folder))


def reproduction(runs, commands, folder):
    """The template variables of the section "Reproduce"."""
    return {"runs": runs, "commands": commands, "configs": tables.configs(runs), "environment": tables.environment(runs),
            "links": [(run.label, [(f.name, _link(f, folder)) for f in sorted(run.folder.glob("*.json*"))]) for run in runs]}


def draw(file, /, **variables):
    """The page of a template of this package with its variables, with anchors and a list of contents.

    Args:
        file: name of the template.
        **variables: of the template; what it shares with the others has defaults.
    """
    shared = {"about": "", "colors": figures.SERIES, "runs": [], "commands": (), "configs": [], "links": []}
    return contents.with_contents(_environment().get_template(file).render(**shared | variables))


@functools.cache
def _environment():
    """The templates' environment; `parts` has the macros that they share."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("vmamba_jax.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters |= {"slices": grids.slices, "spanned": grids.spanned}
    environment.globals |= {"percent": tables.percent, "interval": tables.interval, "points": tables.points}
    environment.globals["parts"] = environment.get_template("parts.html").module
    return environment


def write(path, runs, **options):
    """Write the page atomically to `path`; options as of `render`. Returns the path."""
    path = run_folder(path)
    return put(path, render(runs, folder=path.parent, **options))


def put(path, text):
    """Write text atomically to `path`, and what `exports.exported` asks for beside a page in a local folder. Returns the path."""
    with files.atomic(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # bytes of a file name that are no UTF-8
    if not isinstance(path, RemotePath):
        exports.beside(pathlib.Path(path), text)
    return path


def headline(runs):
    """The first sentence: the runs' accuracies under the attack of the accuracy curve, the highest first; clean accuracies without attacks."""
    if not all(run.headline for run in runs):
        ranked = sorted(runs, key=lambda run: -run.evaluation["accuracy"])
        listed = [f"{tables.percent(run.evaluation['accuracy'])} for {run.label}" for run in ranked]
        return f"Clean accuracy: {', '.join(listed)}."
    ranked = sorted(runs, key=lambda run: -run.headline["robust_accuracy"])
    attack = tables.attack_name(ranked[0].headline)
    listed = [f"{tables.percent(run.headline['robust_accuracy'])} for {run.label}" for run in ranked]
    return f"Accuracy under {attack}: {', '.join(listed)}."


def _calibration(runs):
    """((models, rows), number of bins) of the calibration; None without any."""
    found = tables.calibration(runs)
    names = ("accuracy", "mean confidence", "expected calibration error", "in bins of equally many images")
    return (grids.by_probe(names, [(label, values) for label, *values, _ in found]), found[0][-1]) if found else None


def _around(runs):
    """((models, rows by block), number of images) of the shares that go around the scans; None without any."""
    found = tables.states(runs)
    return (grids.by_probe(itertools.count(), [(label, cells) for label, cells, _ in found]), found[0][-1]) if found else None


def _examples(run):
    """One run's images: a clean row and an attacked row of tiles, each with its prediction and whether it is correct."""
    arrays, names = run.examples, [str(name) for name in run.examples["classes"]]
    rows = []
    for kind, images, predictions in (("clean", arrays["clean"], arrays["clean_predictions"]),
                                      ("attacked", arrays["adversarial"], arrays["adversarial_predictions"])):
        tiles = [{"image": figures.tile(image), "prediction": names[p], "correct": bool(p == y), "alt": f"{kind} image of {names[y]}, predicted {names[p]}"}
                 for image, p, y in zip(images, predictions, arrays["labels"], strict=True)]
        rows.append({"kind": kind, "tiles": tiles, "correct": int(np.sum(predictions == arrays["labels"]))})
    return {"label": run.label, "attack": str(arrays["attack"]), "rows": rows}


def _link(file, folder):
    if isinstance(file, RemotePath):
        return urllib.parse.quote(str(file).removeprefix(f"{folder}/"), safe="/:")
    return urllib.parse.quote(pathlib.PurePath(os.path.relpath(file, folder)).as_posix())
