"""The figures of a training's page, as sections with title, SVG text and caption."""
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vmamba_jax.reports import figures
from vmamba_jax.reports.figures import FAINT, INK, SERIES

LINES = (  # metric, name, colour, line, marker
    ("accuracy", "training batches, as trained on", SERIES[4], "-", ""), ("clean_accuracy", "training batches, clean", SERIES[5], "-", ""),
    ("validation/accuracy", "validation, clean", SERIES[1], "-", "s"), ("validation/robust_accuracy", "validation, {attack}", SERIES[0], "-", "o"))


def sections(run, found):
    """[{"title", "figure", "caption"}, ...] of what the run holds. found: of `training.overfitting`."""
    made = [("Accuracy", _accuracy(run, found), "Training batches are measured as they are trained on, attacked where the objective attacks; "
             "validation images are apart from the test images. The dotted line marks the best validation."),
            ("Loss and gradient", _pair(run, _loss, _gradient),
             "Means between two lines of the log. Crosses mark where steps were skipped; they make "
             "no update and are in no mean."),
            ("Learning rate and pace", _pair(run, _rate, _pace),
             "Pace leaves out compiling and validation. Waiting is the share of that time in which "
             "the device had no batch ready.")]
    return [{"title": title, "figure": figure, "caption": caption} for title, figure, caption in made if figure]


def _accuracy(run, found):
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        axes, drawn = figure.subplots(), False
        for key, name, color, line, marker in LINES:
            x, y = _series(run, key)
            if len(x):
                drawn = True
                axes.plot(x, y, line, color=color, marker=marker, label=name.format(attack=found["attack"] if found else "attacked"),
                          linewidth=2.0 if marker else 1.4, zorder=3 if marker else 2)
        if not drawn:
            return ""
        if found:
            axes.axvline(found["best"]["epoch"], color=INK, linewidth=1, linestyle=":", zorder=1)
        axes.set(xlabel="epoch", ylabel="accuracy", xlim=(0, None), ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        figure.legend(loc="outside lower center", ncols=2)
        return figures.svg(figure, "Accuracy over the epochs: on training batches, and on validation images clean and attacked.")


def _pair(run, *draws):
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        names = [draw(axes, run) for draw, axes in zip(draws, figure.subplots(1, 2), strict=True)]
        if not any(names):
            return ""
        for axes, name in zip(figure.axes, names, strict=False):
            axes.set_visible(bool(name))
            axes.set(xlabel="epoch", xlim=(0, None))
        return figures.svg(figure, " and ".join(filter(None, names)) + " over the epochs.")


def _loss(axes, run):
    x, y = _series(run, "loss")
    axes.plot(x, y, color=SERIES[0])
    axes.set(title="Training loss", ylim=(0, None))
    at, counts = _series(run, "skipped")
    if any(counts):
        axes.plot(at[counts > 0], np.zeros((counts > 0).sum()), "x", color=INK, markersize=8, markeredgewidth=2, clip_on=False, zorder=5)
    return "Training loss" if len(x) else ""


def _gradient(axes, run):
    x, y = _series(run, "grad_norm")
    axes.plot(x, y, color=SERIES[1])
    axes.set_title("Gradient norm, before clipping")
    if len(y) and y.min() > 0 and y.max() > 20 * y.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)
    return "Gradient norm" if len(x) else ""


def _rate(axes, run):
    x, y = _series(run, "learning_rate")
    axes.plot(x, y, color=SERIES[2])
    axes.set(title="Learning rate", ylim=(0, None))
    return "Learning rate" if len(x) else ""


def _pace(axes, run):
    x, y = _series(run, "images_per_second")
    axes.plot(x, y, color=SERIES[3], label="images/s")
    axes.set(title="Images a second, and waiting for them", ylim=(0, None))
    at, share = _series(run, "input_share")
    if len(at):
        right = axes.twinx()
        right.fill_between(at, share, color=FAINT, alpha=0.6, linewidth=0, step="mid", zorder=0)
        right.set(ylim=(0, 1))
        right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        right.grid(False)
        right.set_ylabel("waiting for input")
        axes.set_zorder(right.get_zorder() + 1)
        axes.patch.set_visible(False)
    return "Images a second" if len(x) else ""


def _series(run, key):
    """Epochs and values of a metric, as arrays."""
    steps, values = run.series(key)
    return np.asarray(steps, float) / (run.results.get("steps_per_epoch") or 1), np.asarray(values, float)
