"""One self-contained HTML page about one or more finished runs: nothing in it is fetched from anywhere."""
import os
import pathlib

import jinja2
import numpy as np

from vmamba_jax.core import files
from vmamba_jax.reports import figures, tables


def render(runs, *, title, about="", commands=(), folder="."):
    """The page as text.

    runs: `Run`s, in the order they are to stand. title, about: a heading, and a paragraph on what was done.
    commands: shell lines that make it again. folder: where the page will lie; links to the raw files are relative to it.
    """
    columns, rows = tables.accuracy(runs)
    return template("report.html").render(
        title=title, about=about, colors=figures.SERIES,
        headline=headline(runs), columns=columns, rows=rows, percent=tables.percent,
        robustness=figures.robustness(runs), training=figures.training_curves([run for run in runs if run.metrics]) if runs[0].metrics else "",
        examples=[_examples(run) for run in runs if run.examples],
        **made(runs, commands, folder))


def made(runs, commands, folder):
    """What the section "How it was made" needs."""
    return {"runs": runs, "commands": commands, "configs": tables.configs(runs), "environment": tables.environment(runs),
            "links": [(run.label, [(f.name, _link(f, folder)) for f in sorted(run.folder.glob("*.json*"))]) for run in runs]}


def template(name):
    """A template of this package, by file name."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("vmamba_jax.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    return environment.get_template(name)


def write(path, runs, **options):
    """Write the page to `path`, whole or not at all; options as `render`. Returns the path."""
    path = pathlib.Path(path)
    return put(path, render(runs, folder=path.parent, **options))


def put(path, text):
    """Write text to `path`, whole or not at all. Returns the path."""
    with files.atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def headline(runs):
    """The sentence that stands first: which run keeps how much of its accuracy under the attack that the curve follows."""
    ranked = sorted(runs, key=lambda run: -run.headline["robust_accuracy"])
    attack = tables.attack_name(ranked[0].headline)
    first = f"Under {attack}, {ranked[0].label} is right on {tables.percent(ranked[0].headline['robust_accuracy'])} of the images"
    rest = " and ".join(f"{run.label} on {tables.percent(run.headline['robust_accuracy'])}" for run in ranked[1:])
    return first + (f", {rest}." if rest else ".")


def _examples(run):
    """One run's pictures: a clean row and an attacked row, each tile with its image, what it was read as, and whether that is right."""
    arrays, names = run.examples, [str(name) for name in run.examples["classes"]]
    rows = []
    for kind, images, predictions in (("clean", arrays["clean"], arrays["clean_predictions"]),
                                      ("attacked", arrays["adversarial"], arrays["adversarial_predictions"])):
        tiles = [{"image": figures.tile(image), "read": names[p], "right": bool(p == y), "alt": f"{kind} {names[y]}, read as {names[p]}"}
                 for image, p, y in zip(images, predictions, arrays["labels"], strict=True)]
        rows.append({"kind": kind, "tiles": tiles, "right": int(np.sum(predictions == arrays["labels"]))})
    return {"label": run.label, "attack": str(arrays["attack"]), "rows": rows}


def _link(file, folder):
    return pathlib.PurePath(os.path.relpath(file, folder)).as_posix()
