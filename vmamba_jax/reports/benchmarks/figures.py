"""The figure of a benchmark file: scan bandwidth, images per second, growth of time, memory and multiply-adds."""
import functools

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vmamba_jax.reports import figures
from vmamba_jax.reports.benchmarks.records import PASSES, device, grouped, select, slope
from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE

PANELS = ("scan", "model", "growth")  # of a run's figure
COSTS = {"temp_mib": ("Growth of temporary memory", "MiB"), "gflops": ("Growth of multiply-adds", "10^9 for an image")}  # field: title, unit
LINES = {"forward": "-", "gradient": "--", "training": "-.", "pgd": ":"}


def figure(run):
    """The run's figure as SVG text, with a panel for each measured part: scan bandwidth, images per second, growth."""
    known = {"scan": [_draw_scan], "model": [_draw_models], "growth": [_draw_growth]}
    if any("gflops" in row for row in select(run, "growth")):
        known["growth"] += [functools.partial(_draw_cost, field) for field in COSTS]
    panels = [draw for what in PANELS if select(run, what) for draw in known[what]]
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white"}):
        chart = Figure(figsize=(5.2 * max(len(panels), 1), 4.8), layout="constrained")
        for axes, draw in zip(np.ravel(chart.subplots(1, max(len(panels), 1))), panels or [lambda axes, run: axes.set_axis_off()], strict=True):
            draw(axes, run)
        chart.suptitle(figures.literal(device(run)), fontsize=11)
        return figures.drawn(chart)


def drawn(run):
    """Whether the run has a part that the figure shows."""
    return run["kind"] == "benchmark" and any(select(run, what) for what in PANELS)


def _draw_scan(axes, run):
    rows = select(run, "scan")
    shapes = list(dict.fromkeys((row["length"], row["channels"]) for row in rows))
    for i, (name, found) in enumerate(_named(rows, "backend", name="{}", state="N = {}", batch="batch {}", dtype="{}").items()):
        for which, line in grouped(found, "pass").items():
            x = [shapes.index((row["length"], row["channels"])) for row in line]
            axes.plot(x, [100 * row.get("share_of_copy", np.nan) for row in line], LINES[which[0]], marker=MARKERS[i % len(MARKERS)],
                      color=SERIES[i % len(SERIES)], label=figures.literal(name) if line[0] is found[0] else None)
    axes.set(title="Scan: share of copy bandwidth", ylabel="%  (solid: forward, dashed: with gradient)", ylim=(0, None),
             xlabel="length x channels")
    axes.set_xticks(range(len(shapes)), [f"{length} x {channels}" for length, channels in shapes], fontsize=9)
    _legend(axes)


def _draw_models(axes, run):
    rows = select(run, "model")
    passes = [which for which in PASSES if any(row["pass"] == which for row in rows)]
    names = _named(rows, "name", backend="{}", batch="batch {}", dtype="{}")
    for i, which in enumerate(passes):
        found = [(y, row) for y, candidate in enumerate(names.values()) for row in candidate if row["pass"] == which]
        axes.barh([y + (i - (len(passes) - 1) / 2) * 0.8 / len(passes) for y, _ in found], [row["images_per_s"] for _, row in found],
                  height=0.8 / len(passes), color=SERIES[i], label=PASSES[which])
    axes.set(title="Models", xlabel="images per second", xlim=(0, None))
    axes.set_yticks(range(len(names)), [figures.literal(name) for name in names], fontsize=9)
    axes.grid(False, axis="y")
    axes.set_axisbelow(True)
    axes.invert_yaxis()
    _legend(axes)


def _draw_growth(axes, run):
    _draw_lines(axes, run, lambda row: row["seconds"]["median"], "Growth", "seconds")


def _draw_cost(field, axes, run):
    _draw_lines(axes, run, lambda row: row.get(field, np.nan), *COSTS[field])


def _draw_lines(axes, run, value, title, unit):
    """A line for each model and pass over the number of tokens, on logarithmic axes."""
    rows = select(run, "growth")
    for i, ((name, which, *_), line) in enumerate(grouped(rows, "name", "pass", "batch", "dtype").items()):
        tokens, values = [row["tokens"] for row in line], [value(row) for row in line]
        fitted = len(set(tokens)) > 1 and min(values) > 0
        axes.loglog(tokens, values, LINES[which], marker=MARKERS[i % len(MARKERS)], color=SERIES[i % len(SERIES)],
                    label=figures.literal(f"{name}, {PASSES[which]}") + (f": slope {slope(tokens, values):.2f}" if fitted else ""))
    axes.set(title=title, xlabel="length (pixels / 16)", ylabel=unit)
    axes.minorticks_off()
    ticks = sorted({row["tokens"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=9)
    _legend(axes, 1)


def _legend(axes, columns=2):
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns)


def _named(rows, first, **others):
    """{name: rows}: a name is the first field and those of the others that differ between rows."""
    found = {}
    differing = {field: words for field, words in others.items() if len({row[field] for row in rows}) > 1}
    for row in rows:
        found.setdefault(", ".join([str(row[first]), *(words.format(row[field]) for field, words in differing.items())]), []).append(row)
    return found
