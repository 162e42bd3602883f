"""Figures of the study of Adaptive Scaling: accuracies, overfitting and error amplification by group, and validation curves."""
import dataclasses

from vmamba_jax.reports.ads.results import COLUMNS
from vmamba_jax.reports.sweep import figures as sweep_figures


def drawn(study):
    """{"accuracy", "overfitting", "amplification", "curves"}: SVG texts."""
    look = lambda group: sweep_figures.style(study.sweep, group)
    values = lambda function: {group: [value for each in study.of(group).values() if (value := function(each)) is not None] for group in study.groups}
    metric = lambda name: values(COLUMNS[name])
    return {
        "accuracy": sweep_figures.dots(study.groups, {"PGD-10, last": metric("PGD-10, last"), "AutoAttack, last": metric("AutoAttack, last")}, look,
                                       "Accuracy under PGD-10 and AutoAttack of every group's last checkpoint."),
        "overfitting": sweep_figures.dots(study.groups, {"Best minus last, PGD-10": metric("best - last"), "Train minus test, PGD-10": metric("train - test")},
                                          look, "Robust overfitting and robust generalization gap of every group."),
        "amplification": sweep_figures.dots(
            study.groups, {"log10 MSE after / before, scan": values(lambda f: f.amplification("scan")),
                           "log10 MSE after / before, AdS": values(lambda f: f.amplification("ads"))}, look,
            "How much the scan and Adaptive Scaling amplify the adversarial error.", percent=False),
        "curves": _curves(study)}


def _curves(study, model="s4", objective="pgd_at"):
    """Validation curves of one model's groups under one objective, or of the first groups without such; the groups that differ in AdS alone."""
    chosen = [group for group in study.groups if group.startswith(f"{model}-") and group.endswith(f"-{objective}")] or study.groups[:4]
    index = {**study.sweep.index, "groups": chosen}
    return sweep_figures.curves(dataclasses.replace(study.sweep, index=index, runs=[run for run in study.sweep.runs if run.group in chosen]))
