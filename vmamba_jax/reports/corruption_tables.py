"""Accuracy on corrupted images by model: a row for each corruption, then the mean over them and the mean corruption error."""
import numpy as np

from vmamba_jax.core import corruption_errors
from vmamba_jax.reports.tables import percent

MEAN, MCE, MEAN_ERROR = "mean over corruptions", "mCE", "mean error (mCE without AlexNet)"


def means(runs):
    """Accuracy on corrupted images, a column for each run that was evaluated on them; a run that lacks a corruption or severity of another has no mean.

    Returns:
        {"grid": (labels, [(corruption, [accuracy as text, or None]), ...]), "sums": names of the last rows, which are over all corruptions,
        "sentence": what these are}; None without such runs.
    """
    measured = [(run.label, run.evaluation["corruptions"]) for run in runs if run.evaluation.get("corruptions")]
    if not measured:
        return None
    accuracies = [corruption_errors.accuracies(found["rows"]) for _, found in measured]
    names = dict.fromkeys(name for found in accuracies for name in found)
    rows = [(name.replace("_", " "), [percent(np.mean(found[name])) if name in found else None for found in accuracies]) for name in names]
    steps = [{(row["corruption"], row["severity"]) for row in found["rows"]} for _, found in measured]
    whole = [found if each == set().union(*steps) else {} for found, each in zip(accuracies, steps, strict=True)]
    return {"grid": ([label for label, _ in measured], rows), **add_means([(found, each["mce"]) for found, (_, each) in zip(whole, measured, strict=True)], rows)}


def add_means(measured, rows):
    """Add the means over corruptions to a table's rows.

    Args:
        measured: [({corruption: accuracies at its severities}, mean corruption error relative to AlexNet in percent, or None), ...] of each column.
        rows: [(name, [text or None]), ...], changed in place.

    Returns:
        {"sums": names of the added rows, "sentence": what they are}.
    """
    found = [float(np.mean([np.mean(values) for values in each.values()])) if each else None for each, _ in measured]
    rows.append((MEAN, [None if mean is None else percent(mean) for mean in found]))
    if any(mce is not None for _, mce in measured):
        rows.append((MCE, [None if mce is None else f"{mce:.1f} %" for _, mce in measured]))
        return {"sums": (MEAN, MCE), "sentence": f"{MCE}: mean corruption error relative to AlexNet."}
    rows.append((MEAN_ERROR, [None if mean is None else percent(1 - mean) for mean in found]))
    return {"sums": (MEAN, MEAN_ERROR), "sentence": "The mean error is over these corruptions and severities. It is not relative to AlexNet, whose errors are "
            "those of ImageNet-C with fifteen corruptions at five severities."}
