"""Tables of a study: accuracy of every model under every probe, example images, and skipped cells."""
import numpy as np

from vmamba_jax.core.corruption_errors import ALEXNET, SEVERITIES, relative
from vmamba_jax.core.statistics import differences_interval
from vmamba_jax.reports import corruption_tables, grids
from vmamba_jax.reports.figures import norm_name, radius_name
from vmamba_jax.reports.labels import attack_label
from vmamba_jax.reports.study.claims import correct
from vmamba_jax.reports.tables import aligned, current_label, percent, points

__all__ = ["absent", "accuracies", "corruption_sums", "environment", "facts", "leads", "links", "mean", "pictures", "points", "text", "title"]
IMAGENET_CLASSES = 1000
PATCH_FOOL_STEPS = 250  # of the paper
NAMES = {"clean": "clean", "centre": "black window", "trajectory": "scan order"}
SHIFTS = {"imagenet_a": "ImageNet-A", "imagenet_r": "ImageNet-R", "imagenet_v2": "ImageNetV2", "imagenet_sketch": "ImageNet-Sketch"}


def title(study, probe):
    """A probe's name on the page: "PGD-5, L∞ 1/255", "Patch-Fool, 2 patches", "gaussian noise"."""
    section = study.probes[probe]
    if "title" in section:
        return section["title"]
    match section["kind"]:
        case "attack":
            attack = section["attack"]
            if attack["name"] == "patch_fool":
                steps = f", {attack['steps']} steps" if attack.get("steps", PATCH_FOOL_STEPS) != PATCH_FOOL_STEPS else ""
                return f"Patch-Fool, {attack['patches']} patch{'es' if attack['patches'] > 1 else ''}{steps}"
            return f"{_label(study, probe)} {radius_name(attack['eps'])}"
        case "curve":
            return _label(study, probe)
        case "corruption":
            return section["corruption"].replace("_", " ")
        case "shift":
            return SHIFTS.get(section["shift"], section["shift"])
        case "components":
            return "components" + (", by stage" if section["blocks"] == "stages" else "")
    return NAMES.get(section["kind"], probe)


def _label(study, probe):
    """An attack's name and norm, from a cell that ran."""
    attack = study.probes[probe]["attack"]
    done = next((cell for (_, name), cell in study.cells.items() if name == probe and "label" in cell), {"label": attack_label(attack)})
    return f"{current_label(done)}, {norm_name(attack.get('norm', 'linf'))}"


def facts(study):
    """([model, ...], [(fact, [text of each model]), ...]): family, kind, parameters, blocks, clean accuracy."""
    names = ("family", "kind", "parameters", "blocks per stage", "clean accuracy")
    clean = {label: mean(study.rows(label, "clean")) for label in study.labels()}
    return grids.by_probe(names, [(each["label"], [each["family"], each["kind"], f"{each['parameters']:,}", ", ".join(map(str, each["depths"])) or "\u2013",
                                                   percent(found["value"]) if (found := clean[each["label"]]) else "\u2013"]) for each in study.models])


def accuracies(study, probes):
    """([model, ...], [(probe's title, [cell of each model]), ...]) of a group of probes; a cell is that of `mean`, or None."""
    rows = [(title(study, probe), [mean(study.rows(label, probe)) for label in study.labels()]) for probe in probes]
    for probe, (_, cells) in zip(probes, rows, strict=True):
        for label, cell in zip(study.labels(), cells, strict=True):
            if cell:
                cell["best"] = leads(study, label, probe)
    return study.labels(), rows


def corruption_sums(study, probes):
    """`corruption_tables.add_means` of a study's corruptions: (rows, {"sums", "sentence"}). A model without every corruption has no mean."""
    found = []
    for label in study.labels():
        cells = {study.probes[probe]["corruption"]: study.rows(label, probe) for probe in probes}
        values = {name: [row["accuracy"] for row in rows] for name, rows in cells.items()} if all(cells.values()) else {}
        complete = set(values) == set(ALEXNET) and all(tuple(row["x"] for row in rows) == SEVERITIES for rows in cells.values())
        errors = {name: 1 - float(np.mean(each)) for name, each in values.items()}
        found.append((values, relative(errors) if complete and _imagenet(study) else None))
    rows = []
    return rows, corruption_tables.add_means(found, rows)


def _imagenet(study):
    """Whether the images have the thousand classes of ImageNet."""
    data = study.index.get("data") or {}
    return data.get("classes") == IMAGENET_CLASSES and data["name"].startswith("imagenet")


def leads(study, model, probe):
    """Whether a model is more accurate under a probe than every other one, by paired intervals of the differences that exclude 0.

    The intervals hold jointly at 95 % (Bonferroni). False if there is no other model, or if a cell has no answers per image.
    """
    others = [label for label in study.labels() if label != model and study.rows(label, probe)]
    own = study.rows(model, probe)
    for other in others:
        rows = study.rows(other, probe)
        if len(rows) != len(own) or any("right" not in row for row in (*own, *rows)) or any(
                a["examples"] != b["examples"] for a, b in zip(own, rows, strict=True)):
            return False
        differences = np.mean([correct(a) - correct(b) for a, b in zip(own, rows, strict=True)], 0)
        if differences_interval(differences, len(others))[0] <= 0:
            return False
    return bool(others)


def mean(rows):
    """{"value", "low", "high", "best"} of a cell's rows: one row's accuracy and interval, or the mean of several without one; None for none."""
    if not rows:
        return None
    value = sum(row["accuracy"] for row in rows) / len(rows)
    low, high = rows[0].get("interval", (value, value))
    shown = len(rows) == 1 and "interval" in rows[0]
    return {"value": value, "low": low if shown else None, "high": high if shown else None, "best": False}


def absent(study):
    """Skipped cells by reason: [(reason, status, [(model, probe title, link), ...]), ...]."""
    found = {}
    for model in study.index["models"]:
        if "error" in model:
            found[(model["error"], "not applicable")] = [(model["label"], "every probe", "study.json")]
    unread = {model["label"] for model in study.index["models"] if "error" in model}
    for (model, probe), cell in study.cells.items():
        if cell["status"] != "done" and model not in unread:
            found.setdefault((cell["reason"], cell["status"]), []).append((model, title(study, probe), cell["file"]))
    return [(reason, status, cells) for (reason, status), cells in found.items()]


def pictures(study):
    """The example image under every probe: [(probe's title, [[picture, ...] of each model, ...]), ...]."""
    rows = [(title(study, probe), [study.cell(label, probe).get("pictures", []) for label in study.labels()]) for probe in study.probes]
    return [(name, shown) for name, shown in rows if any(shown)]


def links(study):
    """[(model, [(probe, file, status), ...]), ...]"""
    found = {}
    for line in study.index["cells"]:
        found.setdefault(line["model"], []).append((line["probe"], line["file"], line["status"]))
    return list(found.items())


def environment(study):
    """[(name, value), ...] of seed, device, versions, data, commit and time."""
    index = study.index
    data = index.get("data", {})
    facts = {"seed": index["config"]["seed"], "device": index["device"], "versions": ", ".join(f"{k} {v}" for k, v in index["versions"].items()),
             "data": ", ".join(f"{k} {v}" for k, v in data.items()), "commit": index["commit"],
             "cells took": f"{sum(cell.get('seconds', 0) for cell in study.cells.values()):.0f} s"}
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def text(study):
    """The table of attacks for a terminal, as lines, one for each model."""
    models, rows = accuracies(study, [*study.of_kind("clean"), *study.of_kind("attack")])
    cells = [[percent(cell["value"]) if cell else "-" for cell in found] for _, found in rows]
    return aligned([["", *(name for name, _ in rows)]] + [[model, *(each[i] for each in cells)] for i, model in enumerate(models)]).splitlines()
