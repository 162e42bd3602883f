"""The page of one run's training: accuracy, loss, gradient norm, learning rate and throughput over the epochs, and robust overfitting."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vmamba_jax.core.run_folder import run_folder
from vmamba_jax.reports import figures, page
from vmamba_jax.reports.figures import FAINT, INK, SERIES
from vmamba_jax.reports.tables import percent

CLEAN, ROBUST = "validation/accuracy", "validation/robust_accuracy"
RAMPED = ("Training loss", "Gradient norm")  # panels that show a ramp of the radius
LINES = (  # metric, name, color, line, marker
    ("accuracy", "training batches, as trained on", SERIES[4], "-", ""), ("clean_accuracy", "training batches, clean", SERIES[5], "-", ""),
    ("validation/accuracy", "validation, clean", SERIES[1], "-", "s"), ("validation/robust_accuracy", "validation, {attack}", SERIES[0], "-", "o"),
    ("validation/mask_AP", "validation, mask AP, clean", SERIES[1], "-", "s"), ("validation/robust_mask_AP", "validation, mask AP, {attack}", SERIES[0], "-", "o"))


def render_training(run, *, title=None, about=None, commands=(), folder="."):
    """The page as text.

    Args:
        run: `Run` with metrics.
        title, about: heading and first paragraph; None: from the run's config and results.
        commands, folder: as of `page.render`.
    """
    found = overfitting(run)
    return page.draw(
        "training.html", title=_title(run) if title is None else title, about=_about(run) if about is None else about,
        sentences=_sentences(run, found), cards=_cards(found), sections=_sections(run, found), **page.reproduction([run], commands, folder))


def write_training(path, run, **options):
    """Write the page atomically to `path`; options as of `render_training`. Returns the path."""
    path = run_folder(path)
    return page.put(path, render_training(run, folder=path.parent, **options))


def overfitting(run):
    """Best and last validation of a run; None if it has none.

    Returns:
        A dict: "key", the accuracy that is compared, "robust", or "clean" for standard training; "attack", the label of the attack behind "robust";
        "best" and "last", {"epoch", "clean", "robust"} of the first validation with the highest `key` and of the last one; "lost", the decrease of
        `key` from best to last; "train", the accuracy on the training batches (perturbed if the objective perturbs them), averaged over the last
        epoch, or None; "train_gap", train minus `key` of last, or None.

    Source: Rice et al. 2020, "Overfitting in adversarially robust deep learning", arXiv 2002.11569.
    """
    steps, robust = run.series(ROBUST)
    if not steps:
        return None
    clean, key = dict(zip(*run.series(CLEAN), strict=True)), "clean" if run.config.get("objective", {}).get("name") == "standard" else "robust"
    at = [{"epoch": step / per_epoch(run), "clean": clean[step], "robust": value} for step, value in zip(steps, robust, strict=True)]
    best, last = at[int(np.argmax([each[key] for each in at]))], at[-1]
    late = [value for step, value in zip(*run.series("accuracy"), strict=True) if step > steps[-1] - per_epoch(run)]
    mean = float(np.mean(late)) if late else None
    return {"key": key, "attack": run.results.get("validation_attack", "attack"), "best": best, "last": last, "lost": best[key] - last[key],
            "train": mean, "train_gap": None if mean is None else mean - last[key]}


def per_epoch(run):
    """Steps in an epoch; 1 if results.json is missing."""
    return run.results.get("steps_per_epoch") or 1


def skipped(run):
    """Number of steps without an update because the loss or the gradient was not finite."""
    return sum(run.series("skipped")[1])


def _title(run):
    model, data = run.config.get("model", {}).get("name", "a model"), run.config.get("data", {}).get("name", "")
    return f"Training {model}" + (f" on {data}" if data else "")


def _about(run):
    results, objective = run.results, run.config.get("objective", {}).get("name")
    parts = [f"{results['parameters']:,} parameters" if "parameters" in results else "", f"objective {objective}" if objective else "",
             f"{results['steps'] / per_epoch(run):.0f} epochs of {per_epoch(run)} steps" if "steps" in results else ""]
    return ", ".join(filter(None, parts)) + "." if any(parts) else ""


def _sentences(run, found):
    count = skipped(run)
    steps = f"{count} step{'s' if count > 1 else ''} with a non-finite loss or gradient {'were' if count > 1 else 'was'} skipped." if count else "No step was skipped."
    if found is None:
        return [steps]
    best, last, key = found["best"], found["last"], found["key"]
    robust = key == "robust"
    what, kind = (f"Under {found['attack']}, validation accuracy", "robust overfitting") if robust else ("Clean validation accuracy", "overfitting")
    if found["lost"] > 0:
        first = (f"{what} was highest at epoch {best['epoch']:.4g}, {percent(best[key])}, and {percent(last[key])} at the end: "
                 f"{100 * found['lost']:.1f} points lost to {kind}.")
    else:
        first = f"{what} was highest at the end, {percent(last[key])}: no {kind}."
    return [first, steps]


def _cards(found):
    if found is None:
        return []
    key = found["key"]
    note = lambda at: f"under {found['attack']}; clean {percent(at['clean'])}" if key == "robust" else \
        f"clean; {percent(at['robust'])} under {found['attack']}"
    cards = [(f"best, epoch {found['best']['epoch']:.4g}", percent(found["best"][key]), note(found["best"])),
             (f"last, epoch {found['last']['epoch']:.4g}", percent(found["last"][key]), note(found["last"])),
             ("best to last", f"\u2212{100 * found['lost']:.1f}" if found["lost"] else "0.0", "points")]
    if found["train"] is not None:
        side = "above" if found["train_gap"] >= 0 else "below"
        cards.append(("training batches", percent(found["train"]),
                      f"as trained on; {100 * abs(found['train_gap']):.1f} points {side} the last validation"))
    return [{"name": name, "value": value, "note": text, "color": f"var(--series-{i})"} for i, (name, value, text) in enumerate(cards)]


def _sections(run, found):
    """[{"title", "figure", "caption"}, ...] of the metrics that the run has. found: of `overfitting`."""
    made = [("Accuracy", _accuracy_figure(run, found), "Training batches are measured as they are trained on, perturbed if the objective perturbs them. "
             "Validation images are not test images. The dotted line marks the best validation."),
            ("Loss and gradient", _pair(run, _loss, _gradient),
             "Means over the steps between two lines of the log. Crosses mark skipped steps, which are in no "
             "mean."),
            ("Learning rate and throughput", _pair(run, _rate, _throughput),
             "Throughput excludes compilation and validation. Waiting is the fraction of that time in "
             "which the device had no batch ready.")]
    return [{"title": title, "figure": figure, "caption": caption} for title, figure, caption in made if figure]


def _accuracy_figure(run, found):
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        axes, drawn = figure.subplots(), False
        for key, name, color, line, marker in LINES:
            x, y = _series(run, key)
            if len(x):
                drawn = True
                axes.plot(x, y, line, color=color, marker=marker, label=figures.literal(name.format(attack=found["attack"] if found else "attacked")),
                          linewidth=2.0 if marker else 1.4, zorder=3 if marker else 2)
        if not drawn:
            return ""
        if found:
            axes.axvline(found["best"]["epoch"], color=INK, linewidth=1, linestyle=":", zorder=1)
        axes.set(xlabel="epoch", ylabel="accuracy", xlim=(0, None), ylim=(0, 1.02))
        figures.mark_ramps(axes, [figures.ramp_epochs(run)])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        figure.legend(loc="outside lower center", ncols=2)
        return figures.svg(figure, "Accuracy over the epochs: on training batches, and on validation images, clean and attacked.")


def _pair(run, *draws):
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        names = [draw(axes, run) for draw, axes in zip(draws, figure.subplots(1, 2), strict=True)]
        if not any(names):
            return ""
        for axes, name in zip(figure.axes, names, strict=False):
            axes.set_visible(bool(name))
            axes.set(xlabel="epoch", xlim=(0, None))
            figures.mark_ramps(axes, [figures.ramp_epochs(run)] if name in RAMPED else [])
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


def _throughput(axes, run):
    x, y = _series(run, "images_per_second")
    axes.plot(x, y, color=SERIES[3], label="images/s")
    axes.set(title="Images per second, and waiting for input", ylim=(0, None))
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
    return "Images per second" if len(x) else ""


def _series(run, key):
    """(epochs, values) of a metric, as arrays."""
    steps, values = run.series(key)
    return np.asarray(steps, float) / per_epoch(run), np.asarray(values, float)
