"""Figures of the mender's page: scores by block, maps by block, internal scores by class, accuracies over seeds."""
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vmamba_jax.core.statistics import mean_interval
from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE, legend_below, percent_axis, svg

BEFORE_AFTER = ("base", "ce", "both")


def scores(study, kind, groups=BEFORE_AFTER, report="location"):
    """Scores by block of one kind, a panel for each state: solid for the first group of samples, dashed for the second; means over seeds."""
    first = study.findings[0]
    names = list(first.content[report]["groups"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.0), layout="constrained")
        panels = figure.subplots(1, len(first.states), sharey=True)
        for axes, state in zip(panels, first.states, strict=True):
            for i, group in enumerate(groups):
                found = list(study.of(group).values())
                for line, name in zip(("-", "--"), names, strict=True):
                    values = [np.mean([each.score(kind, name, state, block, report) for each in found]) for block in first.blocks] if found else []
                    if found:
                        axes.plot(first.blocks, values, line, marker=MARKERS[i], color=SERIES[i], label=f"{group}, {name}" if state == first.states[0] else None)
            axes.set(title=state, xlabel="block", xticks=first.blocks, yscale="log")
        panels[0].set_ylabel(f"{kind} score")
        figure.legend(loc="outside lower center", ncols=len(groups))
        return svg(figure, f"{kind} scores of {' and '.join(names)} samples by state and block, for {', '.join(groups)}.")


def by_class(study, groups=BEFORE_AFTER, state="x"):
    """Internal scores by class of one state in the deepest block, difficult samples; bars are means over seeds, lines their 95 % intervals."""
    first = study.findings[0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.0), layout="constrained")
        axes = figure.subplots()
        groups = [group for group in groups if study.of(group)]
        for i, group in enumerate(groups):
            rows = np.array([next(row["difficult"]["internal"]["by_class"] for row in each.content["location"]["rows"]
                                  if (row["state"], row["block"]) == (state, each.deepest)) for each in study.of(group).values()])
            at = np.arange(rows.shape[1]) + (i - (len(groups) - 1) / 2) * 0.8 / len(groups)
            axes.bar(at, rows.mean(0), 0.8 / len(groups), color=SERIES[i], label=group)
            for x, column in zip(at, rows.T, strict=True):
                interval = mean_interval(column)
                if interval["n"] > 1:
                    axes.plot([x, x], [max(0, interval["low"]), interval["high"]], color="0.5", linewidth=1)
        axes.set(xlabel="class", ylabel=f"internal score of {state}, block {first.deepest}", xticks=range(first.content["location"]["classes"]))
        legend_below(figure)
        return svg(figure, f"Internal scores of {state} in the deepest block by class, difficult samples.")


def maps(study, groups=("base", "both"), state="s"):
    """External correlation of one state on some test images by block, the first seed of each group; yellow is high."""
    with matplotlib.rc_context(STYLE):
        chosen = [(group, next(iter(study.of(group).values()))) for group in groups if study.of(group)]
        blocks = chosen[0][1].blocks
        count = len(chosen[0][1].content["maps"]["index"])
        figure = Figure(figsize=(9.6, 1.5 * len(blocks) * len(chosen)), layout="constrained")
        panels = np.atleast_2d(figure.subplots(len(blocks) * len(chosen), count))
        for row, (group, found, block) in enumerate((group, found, block) for group, found in chosen for block in blocks):
            for axes, tokens in zip(panels[row], found.content["maps"]["maps"][f"{state}@{block}"], strict=True):
                axes.pcolormesh(np.asarray(tokens)[::-1], cmap="viridis", vmin=0, vmax=1, rasterized=False)
                axes.set(xticks=[], yticks=[], aspect="equal")
            panels[row][0].set_ylabel(f"{group}\nblock {block}", fontsize=9)
        return svg(figure, f"External correlation of {state} by block on test images, for {' and '.join(groups)}.")


def accuracies(study, metric):
    """Accuracy of one split by group: small markers are seeds, lines the 95 % interval of their mean."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.8), layout="constrained")
        axes = figure.subplots()
        groups = study.groups
        for i, group in enumerate(groups):
            values = [each.accuracy[metric] for each in study.of(group).values()]
            interval, color = mean_interval(values), SERIES[i % len(SERIES)]
            axes.plot([i] * len(values), values, ".", color=color, alpha=0.6)
            axes.plot(i, interval["mean"], MARKERS[i % len(MARKERS)], color=color)
            if interval["n"] > 1:
                axes.plot([i, i], [max(0, interval["low"]), min(1, interval["high"])], color=color)
        axes.set(xticks=range(len(groups)), xticklabels=groups, ylabel=f"accuracy, {metric}")
        axes.tick_params(axis="x", labelrotation=20)
        percent_axis(axes)
        return svg(figure, f"Accuracy ({metric}) of every group over seeds.")
