"""The page of an analysis, drawn from the files of `experiments.analyze` alone."""
import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from vmamba_jax.core import files
from vmamba_jax.reports import grids, page, tables
from vmamba_jax.reports.analysis import figures
from vmamba_jax.reports.displayed import Displayed

MISSING = {"status": "failed", "reason": "the file of the cell is missing; the same command computes it again"}


@dataclasses.dataclass(frozen=True)
class Analysis(Displayed):
    """Contents of an analysis' folder: analysis.json and the cells in its order, each with its "file"."""
    render_name = "render_analysis"
    folder: pathlib.Path
    index: Mapping
    cells: Sequence

    def done(self, part):
        """[(label, cell), ...] of the finished cells of one part."""
        return [(cell["model"], cell) for cell in self.cells if (cell["part"], cell["status"]) == (part, "done")]

    def arrays(self, cell):
        """The arrays saved beside a cell.

        Raises:
            FileNotFoundError: they are not there.
        """
        path = (self.folder / cell["file"]).with_suffix(".npz")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; the same command computes the cell again once {path.with_suffix('.json').name} is deleted")
        with np.load(path) as found:
            return {name: found[name] for name in found.files}

    @functools.cached_property
    def absent(self):
        """[(model, part, reason), ...] of what was not measured."""
        unread = [(model["label"], "all", model["error"]) for model in self.index["models"] if "error" in model]
        return unread + [(cell["model"], cell["part"], f"{cell['status']}: {cell.get('reason', '')}") for cell in self.cells if cell["status"] != "done"]


def read_analysis(folder) -> Analysis:
    """Read an analysis' folder. Raises FileNotFoundError if it has no analysis.json."""
    folder = pathlib.Path(folder)
    index = files.read_json(folder / "analysis.json")
    if index is None:
        raise FileNotFoundError(f"folder={folder}: expected analysis.json in it; run `python -m experiments.analyze --workdir {folder}` first")
    cells = [(files.read_json(folder / line["file"]) or MISSING) | {name: line[name] for name in ("file", "model", "part")} for line in index["cells"]]
    return Analysis(folder, index, cells)


def write_analysis(folder):
    """Write analysis.html to an analysis' folder. Returns the page's path."""
    return page.put(pathlib.Path(folder) / "analysis.html", render_analysis(read_analysis(folder)))


def render_analysis(analysis):
    """The page as text."""
    index, data = analysis.index, analysis.index.get("data")
    statistics = analysis.done("statistics")
    environment = [(name, value) for name, value in {
        "device": index["device"], "versions": ", ".join(f"{name} {version}" for name, version in index["versions"].items()), "commit": index["commit"],
        "computation took": f"{sum(cell.get('seconds', 0) for cell in analysis.cells):.0f} s"}.items() if value]
    command = index["command"] or f"python -m experiments.analyze --workdir {shlex.quote(str(analysis.folder))}"
    fields = [{"label": label, "picture": figures.field(analysis.arrays(cell)["field"]), **cell} for label, cell in analysis.done("receptive_field")]
    return page.draw(
        "analysis.html", title=f"Inside {len([model for model in index['models'] if 'error' not in model])} models", commands=[command],
        environment=environment, models=[model for model in index["models"] if "error" not in model],
        about=f"{data['examples']} images of {data['name']} ({data['split']})." if data else "No model could be read.",
        fields=fields, contributions=_contributions(fields),
        attended=[_attention(label, cell, analysis.arrays(cell)) for label, cell in analysis.done("attention")],
        statistics=figures.statistics(statistics) if statistics else "", rows=[(label, cell["blocks"]) for label, cell in statistics], absent=analysis.absent)


def _contributions(fields):
    """(models, rows) of the receptive fields: image, number of images, and the contribution score of each share."""
    if not fields:
        return (), ()
    images = lambda each: f"{each['examples'] - each['skipped']}" + f" ({each['skipped']} not finite)" * bool(each["skipped"])
    names = ["image", "images", *(f"{100 * row['share']:g} %" for row in fields[0]["contribution"])]
    return grids.by_probe(names, [(each["label"], [f"{each['sides'][0]} x {each['sides'][1]}", images(each), *each["contribution"]]) for each in fields])


def _attention(label, cell, arrays):
    """The pictures of one model: a row for each photo and query, and of the first query the scans or heads and the forms."""
    photos, places, grid, rows = arrays["photos"], cell["places"], cell["grid"], []
    name = "scan" if cell["forms"] else "head"
    for i, pixels in enumerate(photos):
        whole = [("diagonal", figures.overlay(pixels, arrays["diagonal"][i])), ("received", figures.overlay(pixels, arrays["received"][i]))]
        whole += [("class token", figures.overlay(pixels, arrays["class"][i]))] if "class" in arrays else []
        for q, place in enumerate(places):
            rows.append([(f"photo {i + 1}, query at row {place[0]}, column {place[1]}", figures.photo(pixels, grid, place)),
                         ("activation", figures.overlay(pixels, arrays["queries"][i, q], place)),
                         ("rolled out", figures.overlay(pixels, arrays["rollout"][i, q], place)), *(whole if q == 0 else [])])
        rows.append([(f"{name} {k + 1}", figures.overlay(pixels, each, places[0])) for k, each in enumerate(arrays["each"][i])])
        if cell["forms"]:
            rows.append([(form, figures.overlay(pixels, each, places[0])) for form, each in zip(cell["forms"], arrays["forms"][i], strict=True)])
    return {"label": label, "block": cell["block"], "grid": f"{grid[0]} x {grid[1]}", "rows": rows}


def analysis_text(analysis):
    """Contribution scores and shares through D for a terminal."""
    found = []
    fields = analysis.done("receptive_field")
    if fields:
        columns = ["model", *(f"{row['share']:.0%}" for row in fields[0][1]["contribution"])]
        found.append("side of the central square, in pixels, that holds a share of the receptive field\n" + tables.aligned(
            [columns, *([label, *(str(row["side"]) for row in cell["contribution"])] for label, cell in fields)]))
    for label, cell in analysis.done("statistics"):
        found.append(f"{label}: share of each block's scan output through D: " + ", ".join(f"{row['skip']['mean']:.2f}" for row in cell["blocks"]))
    found += [f"{model}, {part}: {reason}" for model, part, reason in analysis.absent]
    return "\n\n".join(found)
