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
    """Best against last on the validation images, as a dict; None where nothing was validated.

    key: what is compared, "robust" accuracy, or "clean" where the objective is standard training. attack: what "robust" is measured under.
    best, last: {"epoch", "clean", "robust"}; best is the validation of the highest `key`, the earliest of equal ones, last the run's last.
    lost: of `key` from best to last (Rice et al. 2020, "Overfitting in adversarially robust deep learning", arXiv 2002.11569).
    train: accuracy on the training batches, as trained on, averaged over the last epoch; train_gap: how far it lies above `key` of last.
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
    note = lambda at: f"right under {found['attack']}, {percent(at['clean'])} without" if key == "robust" else \
        f"right, {percent(at['robust'])} under {found['attack']}"
    cards = [(f"best, epoch {found['best']['epoch']:.4g}", percent(found["best"][key]), note(found["best"])),
             (f"last, epoch {found['last']['epoch']:.4g}", percent(found["last"][key]), note(found["last"])),
             ("best to last", f"\u2212{100 * found['lost']:.1f}" if found["lost"] else "0.0", "points")]
    if found["train"] is not None:
        side = "above" if found["train_gap"] >= 0 else "below"
        cards.append(("training batches", percent(found["train"]),
                      f"right as trained on, {100 * abs(found['train_gap']):.1f} points {side} the last validation"))
    return [{"name": name, "value": value, "note": text, "color": f"var(--series-{i})"} for i, (name, value, text) in enumerate(cards)]
