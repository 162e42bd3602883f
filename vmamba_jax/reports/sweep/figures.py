"""Figures of a sweep: accuracy of every seed and group, and the validation curves of all runs."""
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vmamba_jax.core import statistics
from vmamba_jax.reports import figures
from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE
from vmamba_jax.reports.sweep.results import CLEAN

CURVES = {"validation/accuracy": "Validation accuracy, clean", "validation/robust_accuracy": "Validation accuracy, {attack}"}
LINES = ("-", "--", ":", "-.")  # groups beyond the colors


def style(sweep, group):
    """Color, marker and line of a group."""
    i = sweep.groups.index(group)
    return {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i % len(MARKERS)], "linestyle": LINES[i // len(SERIES) % len(LINES)]}


def seeds(sweep):
    """Clean and robust accuracy of each seed, with mean and 95 % interval of each group, as SVG text; "" if no run is done."""
    if not sweep.done:
        return ""
    panels = {f"Accuracy, {metric}": sweep.values[metric] for metric in dict.fromkeys((CLEAN, sweep.headline)) if metric in sweep.values}
    return dots(sweep.groups, {title: {group: list(seeds.values()) for group, seeds in groups.items()} for title, groups in panels.items()},
                lambda group: style(sweep, group), "Accuracy of every seed, with the mean and the 95 % interval of each group.")


def dots(groups, panels, look, alt, percent=True):
    """A row for each group and a panel for each figure: small markers are seeds, with mean and 95 % interval; as SVG text.

    Args:
        groups: names, from the top.
        panels: {title: {group: values of the seeds}}.
        look: group -> {"color", "marker"}, with other entries ignored.
        alt: description of the figure.
        percent: whether the values are shares shown in %.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.3 + 0.42 * len(groups)), layout="constrained")
        for axes, (title, found) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True):
            for y, group in enumerate(groups):
                if found.get(group):
                    _group(axes, y, found[group], look(group))
            axes.set_title(figures.literal(title))
            if percent:
                axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_ylim(len(groups) - 0.5, -0.5)
            axes.margins(x=0.08)
        figure.axes[0].set_yticks(range(len(groups)), [figures.literal(group) for group in groups])
        return figures.svg(figure, alt)


def _group(axes, y, found, look):
    color, marker = look["color"], look["marker"]
    axes.plot(found, np.full(len(found), y), marker, color=color, alpha=0.45, markersize=4.5, markeredgewidth=0)
    row = statistics.mean_interval(found)
    if row["n"] > 1:
        axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2)
        axes.plot(row["mean"], y, marker, color=color, markersize=8, markeredgecolor=figures.INK)


def curves(sweep):
    """Validation accuracy of every run over the epochs, clean and under the validation attack, as SVG text; "" without any."""
    runs = [each for each in sweep.runs if each.run is not None and each.run.results.get("steps_per_epoch")]
    shown = [key for key in CURVES if any(each.run.series(key)[0] for each in runs)]
    if not shown:
        return ""
    attack = next((each.run.results["validation_attack"] for each in runs if "validation_attack" in each.run.results), "attacked")
    groups = [group for group in sweep.groups if any(each.group == group for each in runs)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6 + 0.25 * -(-len(groups) // 3)), layout="constrained")
        for axes, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for group in groups:
                look = style(sweep, group)
                drawn = [curve(each.run, key) for each in runs if each.group == group and each.run.series(key)[0]]
                thin = dict(color=look["color"], linestyle=look["linestyle"], linewidth=0.9, alpha=0.6 if len(drawn) > 1 else 1.0)
                for x, y in drawn:
                    axes.plot(x, y, **thin)
                if len(drawn) > 1 and all(np.array_equal(x, drawn[0][0]) for x, _ in drawn):
                    axes.plot(drawn[0][0], np.mean([y for _, y in drawn], axis=0), color=look["color"], linestyle=look["linestyle"], linewidth=2.2)
            axes.set(title=figures.literal(CURVES[key].format(attack=attack)), xlabel="epoch", xlim=(0, None))
            figures.percent_axis(axes)
            figures.mark_ramps(axes, [figures.ramp_epochs(each.run) for each in runs])
        handles = [Line2D([], [], color=style(sweep, group)["color"], linestyle=style(sweep, group)["linestyle"], label=figures.literal(group))
                   for group in groups]
        figures.legend_below(figure, handles)
        return figures.svg(figure, "Validation accuracy of every run over the epochs.")


def curve(run, key):
    """(epochs, values) of a metric, as arrays."""
    steps, accuracy = run.series(key)
    return np.divide(steps, run.results["steps_per_epoch"]), np.asarray(accuracy, float)
