"""Figures of a study, and the sections of its page."""
import base64
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from vmamba_jax.reports import figures
from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE
from vmamba_jax.reports.study import tables

COMPONENTS = {"B": "B", "C": "C", "delta": "delta", "A_bar": "A", "B_bar_delta": "delta in delta B"}
COLUMNS = 4


def sections(study):
    """[{"title", "about", "table" or None, "figures": [(svg, caption), ...]}, ...]; without sections none of whose cells ran."""
    return list(filter(None, (make(study) for make in (_attacks, _corruptions, _shifts, _components, _lost, _order, _center))))


def _section(title, about, table=None, drawn=(), sums=()):
    drawn = [each for each in drawn if each]
    filled = table and any(cell for _, cells in table[1] for cell in cells)
    return {"title": title, "about": about, "table": table if filled else None, "figures": drawn, "sums": sums} if filled or drawn else None


def _attacks(study):
    names = [*study.of_kind("clean"), *study.of_kind("attack")]
    curves = study.of_kind("curve")
    return _section("Whole-image and patch attacks", "Accuracy on clean images and under each attack, with Wilson's 95 % interval; bold: "
                    "higher than that of every other model, by paired intervals that hold jointly at 95 % and exclude 0.", tables.accuracies(study, names),
                    [_panels(study, curves, "perturbation budget, pixels in [0, 1]", "Accuracy against the perturbation budget: the same attack at "
                             "every radius, with its step size in proportion.", wide=True, clean=True)])


def _corruptions(study):
    names = study.of_kind("corruption")
    models, rows = tables.accuracies(study, names)
    if not any(cell for _, cells in rows for cell in cells):
        return None
    more, about = tables.corruption_sums(study, names)
    return _section("Corruptions", f"Mean accuracy over the severities of each corruption. {about['sentence']}", (models, rows + more),
                    [_panels(study, names, "severity", "Accuracy against severity; 0: clean images.", clean=True)], about["sums"])


def _shifts(study):
    return _section("Distribution shifts", "Accuracy over the classes that each dataset has.",
                    tables.accuracies(study, study.of_kind("shift")))


def _components(study):
    names = study.of_kind("components")
    return _section("Component-wise gradients of the scan", "The model is unchanged; only the gradient of the attack is blocked in "
                    "one component. Bars are robust accuracy with the component blocked minus that without, in points, with paired 95 % intervals: "
                    "positive: the component's gradient makes the attack stronger; negative: weaker.", None,
                    [_bars(study, name) for name in names])


def _lost(study):
    groups = (("information_drop", "fraction dropped", "Pixels dropped along a scan; 0: clean images."),
              ("patch_drop", "fraction of the area", "Patches dropped, in layouts of equal area; 0: clean images."),
              ("shuffle", "patches per side", "Patches shuffled; a finer grid displaces more of the image."))
    names = [name for group, _, _ in groups for name in study.in_group(group)]
    return _section("Occlusion and shuffling", "Mean accuracy over the steps of each disturbance.", tables.accuracies(study, names),
                    [_panels(study, study.in_group(group), label, caption, clean=group != "shuffle")
                     for group, label, caption in groups])


def _order(study):
    found = {label: {row["x"]: row for probe in study.of_kind("trajectory") for row in study.rows(label, probe)} for label in study.labels()}
    names = list(dict.fromkeys(x for rows in found.values() for x in rows))
    table = study.labels(), [(x, [tables.mean([rows[x]] if x in rows else []) for rows in found.values()]) for x in names]
    return _section("Scan order", "Another scan order than in training on clean images (\u201cscan\u201d), or the scan order of training on images "
                    "with permuted patches (\u201cimage\u201d).", table)


def _center(study):
    cells = [(label, probe, study.cell(label, probe)) for label in study.labels() for probe in study.of_kind("centre")]
    cells = [(label, cell) for label, _, cell in cells if cell.get("status") == "done"]
    if not cells:
        return None
    about = "Accuracy with a black window at each position of the image."
    return _section("Sensitivity to the position of an occlusion", about, None, [_maps(cells), _rings(study, cells)])


def _panels(study, probes, xlabel, caption, *, clean=False, wide=False):
    """(svg, caption) of accuracy against each probe's steps, one panel for each probe and one line for each model; None if no cell has rows."""
    shown = [probe for probe in probes if any(study.rows(label, probe) for label in study.labels())]
    if not shown:
        return None
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9 if wide else 0.7 + 2.4 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, probe in zip(grid.flat, shown, strict=False):
            for i, label in enumerate(study.labels()):
                if rows := study.rows(label, probe):
                    _line(axes, ([{"x": 0, **row} for row in study.rows(label, "clean")] if clean else []) + rows, i)
            axes.set_title(figures.literal(study.title(probe)), fontsize=12 if wide else 10.5, fontweight="bold" if wide else "normal")
            figures.percent_axis(axes)
            axes.margins(x=0.04)
            if study.probes[probe]["kind"] == "curve":
                figures.budget_axis(axes, [row["x"] for label in study.labels() for row in study.rows(label, probe)])
        for axes in list(grid.flat)[len(shown):]:
            axes.set_axis_off()
        figure.supxlabel(xlabel, fontsize=11)
        _legend(figure, study)
        return figures.svg(figure, f"{caption} Lines: {', '.join(study.labels())}."), caption


def _line(axes, rows, i):
    color = SERIES[i % len(SERIES)]
    numeric = all(isinstance(row["x"], (int, float)) for row in rows)
    x = [row["x"] for row in rows] if numeric else np.arange(len(rows))
    axes.fill_between(x, *np.array([row["interval"] for row in rows]).T, color=color, alpha=0.12, linewidth=0)
    axes.plot(x, [row["accuracy"] for row in rows], marker=MARKERS[i % len(MARKERS)], color=color, markersize=4.5)
    if not numeric:
        axes.set_xticks(x, [row["x"] for row in rows], fontsize=9)


def _legend(figure, study):
    handles = [Line2D([], [], color=SERIES[i % len(SERIES)], marker=MARKERS[i % len(MARKERS)], label=figures.literal(label)) for i, label in enumerate(study.labels())]
    figure.legend(loc="outside upper right", **figures.fitting(figure, handles, fontsize=10))


def _bars(study, probe):
    """(svg, caption) of a component probe's bars, grouped by model, the smallest first, or by stage; None if no cell has rows."""
    order = sorted(study.models, key=lambda model: model["parameters"])
    found = [(model, study.rows(model["label"], probe)) for model in order if study.rows(model["label"], probe)]
    if not found:
        return None
    names = list(dict.fromkeys(row["component"] for _, rows in found for row in rows))
    groups = [(model, place) for model, rows in found for place in dict.fromkeys(_place(row) for row in rows)]
    width = 0.8 / len(names)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        axes = figure.subplots()
        for i, name in enumerate(names):
            for g, (model, place) in enumerate(groups):
                for row in (row for row in study.rows(model["label"], probe) if row["component"] == name and _place(row) == place):
                    low, high = row["interval"]
                    x, y = g + (i - (len(names) - 1) / 2) * width, 100 * row["difference"]
                    axes.bar(x, y, 0.9 * width, color=SERIES[i % len(SERIES)])
                    axes.plot([x, x], [100 * low, 100 * high], color=figures.INK, linewidth=1.1)
        axes.axhline(0, color=figures.INK, linewidth=1)
        named = [f"{figures.literal(model['label'])}{f', {place}' if place else ''}\n{model['parameters']:,} parameters" for model, place in groups]
        axes.set_xticks(range(len(groups)), named, fontsize=9)
        staged = any(place for _, place in groups)
        axes.set(ylabel="points of robust accuracy", title="Blocked in one stage at a time" if staged else "Blocked in all blocks")
        axes.grid(axis="x", visible=False)
        colors = [(SERIES[i % len(SERIES)], COMPONENTS.get(name, name)) for i, name in enumerate(names)]
        figure.legend(handles=[Line2D([], [], color=color, linewidth=7, label=label) for color, label in colors],
                      loc="outside upper right", ncols=len(names), fontsize=10)
        caption = "Effect of blocking " + ", ".join(COMPONENTS.get(name, name) for name in names) + ", from the smallest model to the largest."
        return figures.svg(figure, caption), caption


def _place(row):
    return "" if row["blocks"] is None else f"stage {', '.join(str(block) for block in row['blocks'])}"


def _maps(cells):
    """(svg, caption) of each model's map of lost accuracy, drawn over an example image."""
    top = max(np.max(cell["map"]) for _, cell in cells)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.7 + 2.9 * -(-len(cells) // COLUMNS)), layout="constrained")
        grid = figure.subplots(-(-len(cells) // COLUMNS), min(COLUMNS, len(cells)), squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (label, cell) in zip(grid.flat, cells, strict=False):
            height, width = cell["shape"][:2]
            picture = Image.open(io.BytesIO(base64.b64decode(cell["pictures"][0]["uri"].split(",")[1])))
            axes.imshow(np.asarray(picture.convert("L")), cmap="gray", extent=(0, width, height, 0), interpolation="nearest")
            drawn = axes.imshow(100 * np.asarray(cell["map"]), cmap="inferno", alpha=0.72, extent=_extent(cell), vmin=0, vmax=100 * max(top, 1e-9),
                                interpolation="nearest")
            axes.set(title=figures.literal(label), xlim=(0, width), ylim=(height, 0))
            axes.title.set_fontsize(10.5)
        figure.colorbar(drawn, ax=grid, location="bottom", shrink=0.5, aspect=40, label="points lost")  # beside the maps its labels would be cut
        caption = ("Accuracy lost to the window at each position, drawn at the window's center over one of the images. "
                   f"Window: {_pixels(cells[0][1]['window'])}; stride: {_pixels(cells[0][1]['stride'])}.")
        return figures.svg(figure, caption), caption


def _extent(cell):
    """(left, right, bottom, top) of a map on the image: each of its cells is centered on its window."""
    rows, columns = np.shape(cell["map"])
    middle, step = (cell["window"] - cell["stride"]) / 2, cell["stride"]
    left, top = cell["lefts"][0] + middle, cell["tops"][0] + middle
    return left, left + columns * step, top + rows * step, top


def _pixels(n):
    return f"{n} pixel{'s' if n != 1 else ''}"


def _rings(study, cells):
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for label, cell in cells:
            i = study.labels().index(label)
            axes.plot([ring["radius"] for ring in cell["rings"]], [100 * ring["drop"] for ring in cell["rings"]], marker=MARKERS[i % len(MARKERS)],
                      color=SERIES[i % len(SERIES)])
        axes.set(xlabel="distance of the window from the center, pixels (Chebyshev)", ylabel="points lost", ylim=(min(0, axes.get_ylim()[0]), None))
        _legend(figure, study)
        caption = "Accuracy lost against the window's distance from the center: " + "; ".join(
            f"{label} {tables.points(cell['slope'])} points per step (standard error {100 * cell['slope_error']:.1f})"
            for label, cell in cells if cell["slope_error"] is not None) + f". A step is {_pixels(cells[0][1]['stride'])}."
        return figures.svg(figure, caption), caption
