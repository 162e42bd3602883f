"""The page of one run's training: accuracy, loss, gradient, learning rate and pace over the epochs, and what robust overfitting cost."""
import pathlib

import numpy as np

from vmamba_jax.reports import figures, page, training_figures
from vmamba_jax.reports.tables import percent

CLEAN, ROBUST = "validation/accuracy", "validation/robust_accuracy"


def render_training(run, *, title=None, about=None, commands=(), folder="."):
    """The page as text.

    run: `Run` whose metrics are there. title, about: by default from its config and results. commands, folder: as of `page.render`.
    """
    found = overfitting(run)
    return page.template("training.html").render(
        title=title or _title(run), about=about if about is not None else _about(run), colors=figures.SERIES, examples=[],
        sentences=_sentences(run, found), cards=_cards(found), sections=training_figures.sections(run, found), **page.made([run], commands, folder))


def write_training(path, run, **options):
    """Write the page to `path`, whole or not at all; options as `render_training`. Returns the path."""
    path = pathlib.Path(path)
    return page.put(path, render_training(run, folder=path.parent, **options))


def overfitting(run):
    """Best against last on the validation images: {"attack", "best", "last", "lost", "train", "train_gap"}, or None where nothing was validated.

    best, last: {"epoch", "clean", "robust"}; best is the validation of the highest robust accuracy, the earliest of equal ones, last the run's
    last. lost: robust accuracy lost from best to last (Rice et al. 2020, "Overfitting in adversarially robust deep learning", arXiv 2002.11569).
    train: accuracy on the training batches, as trained on, averaged over the last epoch; train_gap: how far it lies above the last robust accuracy.
    """
    steps, robust = run.series(ROBUST)
    if not steps:
        return None
    clean = dict(zip(*run.series(CLEAN), strict=True))
    at = [{"epoch": step / per_epoch(run), "clean": clean.get(step), "robust": value} for step, value in zip(steps, robust, strict=True)]
    best, last = at[int(np.argmax(robust))], at[-1]
    train_steps, train = run.series("accuracy")
    late = [value for step, value in zip(train_steps, train, strict=True) if step > steps[-1] - per_epoch(run)]
    mean = float(np.mean(late)) if late else None
    return {"attack": run.results.get("validation_attack", "attack"), "best": best, "last": last, "lost": best["robust"] - last["robust"],
            "train": mean, "train_gap": None if mean is None else mean - last["robust"]}


def per_epoch(run):
    """Steps in an epoch, 1 where the run does not tell."""
    return run.results.get("steps_per_epoch") or 1


def skipped(run):
    """How many steps made no update because a loss or gradient was not finite."""
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
    steps = f"{count} step{'s' if count > 1 else ''} with a loss or gradient that was not finite made no update." if count else "No step was skipped."
    if found is None:
        return [steps]
    best, last, attack = found["best"], found["last"], found["attack"]
    if found["lost"] > 0:
        first = (f"Under {attack}, validation accuracy was highest at epoch {best['epoch']:.4g}, {percent(best['robust'])}, and {percent(last['robust'])} "
                 f"at the end: {100 * found['lost']:.1f} points lost to robust overfitting.")
    else:
        first = f"Under {attack}, validation accuracy was highest at the end, {percent(last['robust'])}: no robust overfitting."
    return [first, steps]


def _cards(found):
    if found is None:
        return []
    named = [(f"best, epoch {found['best']['epoch']:.4g}", found["best"], 0), (f"last, epoch {found['last']['epoch']:.4g}", found["last"], 1)]
    cards = [{"name": name, "value": percent(at["robust"]), "color": f"var(--series-{i})",
              "note": f"right under {found['attack']}" + (f", {percent(at['clean'])} without" if at["clean"] is not None else "")} for name, at, i in named]
    gap = f"{percent(found['train'])} on training batches, {100 * found['train_gap']:+.1f} points beside it" if found["train"] is not None else ""
    return [*cards, {"name": "best against last", "value": f"{-100 * found['lost']:+.1f}" if found["lost"] else "0", "color": "var(--series-2)",
                     "note": "points under attack from best to last; " + gap if gap else "points under attack from best to last"}]
