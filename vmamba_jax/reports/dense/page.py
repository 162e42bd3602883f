"""The page of a study of dense tasks, its JSON and Markdown summaries and its terminal text, drawn from saved files alone."""
import pathlib

import numpy as np

from vmamba_jax.core import files
from vmamba_jax.reports import claims, figures, grids, page, tables
from vmamba_jax.reports.dense import figures as drawn
from vmamba_jax.reports.dense import objects
from vmamba_jax.reports.dense.results import METRICS, over_seeds, read_dense

NAMES = {"segmentation": "mIoU", "detection": "mask AP"}
HEADS = {"segmentation": "mIoU", "detection": "Mask AP"}   # at the start of a sentence
NUMBERS = ("box_AP", "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75")  # of detectors, clean


def write_dense(folder, *, commands=()):
    """Write dense.html, dense.json and dense.md to a study's folder. Returns the page's path.

    Args:
        folder: of `experiments.dense`.
        commands: shell lines that reproduce it.
    """
    folder = pathlib.Path(folder)
    study = read_dense(folder)
    files.write_json(folder / "dense.json", {group: over_seeds(runs) for group, runs in study.groups.items()})
    page.put(folder / "dense.md", claims.markdown_tables(_tables(study)))
    return page.put(folder / "dense.html", render_dense(study, commands=commands))


def render_dense(study, *, commands=()):
    """The page as text; without any finished run it says so."""
    done, tasks, listed = bool(study.found), _by_task(study), _tables(study)
    corrupted = done and all(each.content.get("corruptions") for each in study.found)
    return page.draw(
        "dense.html", title=study.index["config"].get("title") or "Dense tasks", commands=commands, environment=_environment(study), done=done,
        found=study.found, missing=study.missing, headline=_headline(study), numbers=[grids.turned(*table) for table in listed[len(tasks):]],
        tables=[(NAMES[task], *grids.turned(*table), _about(runs)) for (task, runs), table in zip(tasks, listed, strict=False)],
        legend=_legend(study), classes=grids.by_probe(*_classes(study)), parts_of_sea=_parts(study),
        shown=[(each.name, each.content["examples"], NAMES[each.task], *_tiles(each)) for each in (runs[0] for runs in study.groups.values()) if each.arrays],
        training=drawn.training(study) if done else "", corruptions=drawn.corruptions(study) if corrupted else "")


def dense_text(study):
    """The scores for a terminal."""
    return claims.text_tables(_tables(study))


def _tables(study):
    """[(columns, rows)] of the task's metric by group and probe, a table for each task; then of detectors' clean numbers. Cells are text in percent."""
    tables = []
    for _, runs_of in _by_task(study):
        groups = {group: over_seeds(runs) for group, runs in runs_of.items()}
        names = list(dict.fromkeys(name for scores in groups.values() for name in scores))
        tables.append((["group", "seeds", *names], [[group, str(len(runs_of[group])), *(_cell(scores.get(name)) for name in names)]
                                                    for group, scores in groups.items()]))
    if detectors := study.of_task("detection"):
        tables.append((["detector", *(name.replace("_", " ") for name in NUMBERS)],
                       [[group, *(f"{100 * np.mean([each.content['clean'][name] for each in runs]):.1f}" for name in NUMBERS)] for group, runs in detectors.items()]))
    return tables


def _by_task(study):
    """[(task, its groups)] of the tasks that have finished runs."""
    return [(task, groups) for task in METRICS if (groups := study.of_task(task))]


def _cell(score):
    if score is None:
        return ""
    interval = "" if score["low"] is None else f" [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
    return f"{100 * score['mean']:.1f}{interval}"


def _headline(study):
    said = []
    for task, groups in _by_task(study):
        listed = ", ".join(f"{tables.percent(over_seeds(runs)['clean']['mean'])} for {group}" for group, runs in groups.items())
        first = next(iter(groups.values()))[0].content
        said.append(f"{HEADS[task]} on the test images: {listed}" + (
            f"; background everywhere has {tables.percent(first['background'])}." if task == "segmentation" else "."))
    return " ".join(said)


def _about(groups):
    first = next(iter(groups.values()))[0]
    attacks = ", ".join(f"{name}: {figures.norm_name(each['settings']['norm'])} {figures.radius_name(each['settings']['eps'])}, {each['settings']['steps']} steps"
                        for name, each in first.content["attacks"].items())
    sea = first.content.get("sea")
    ensemble = f" SEA: radius {figures.radius_name(sea['eps'])}, {len(sea['parts'])} losses of {sea['steps']} steps; the worst case over them." if sea else ""
    return (f"{NAMES[first.task]} in percent on {first.content['examples']} test images. {attacks}.{ensemble} mPC: mean over corruptions and severities; rPC: mPC over clean. "
            "In brackets the 95 % interval: over seeds (Student's t), or with one seed over images (bootstrap).")


def _parts(study):
    """[(group, loss, mIoU, pixel accuracy)] of SEA's parts and the worst case, first seeds."""
    rows = []
    for group, runs in study.of_task("segmentation").items():
        if sea := runs[0].content.get("sea"):
            rows += [(group, part["loss"], tables.percent(part["mIoU"]), tables.percent(part["aAcc"])) for part in sea["parts"]]
            rows.append((group, "worst case", tables.percent(sea["worst"]["mIoU"]), tables.percent(sea["worst"]["aAcc"])))
    return rows


def _classes(study):
    """(names, [(group, [IoU of each class])]) of the first seeds, clean."""
    groups = study.of_task("segmentation")
    if not groups:
        return (), []
    names = next(iter(groups.values()))[0].content["classes"]
    return names, [(group, ["-" if x is None else tables.percent(x) for x in runs[0].content["clean"]["IoU"]]) for group, runs in groups.items()]


def _legend(study):
    """[(name of a class, its color)]; a detector's classes have the colors of the segmenters' classes behind the background."""
    first = next((each for each in study.found if each.task == "segmentation"), None)
    if first is not None:
        return list(zip(first.content["classes"], map(_css, drawn.palette(len(first.content["classes"]))), strict=True))
    names = study.found[0].content["classes"] if study.found else ()
    return list(zip(names, map(_css, drawn.colors_of(len(names), clear=False)), strict=True))


def _tiles(found):
    if found.task == "detection":
        return objects.tiles(found)
    classes, worst = len(found.content["classes"]), len(found.content["worst"])
    count = len(found.arrays["index"])
    return drawn.tiles(found, classes, range(count - worst)), drawn.tiles(found, classes, range(count - worst, count))


def _environment(study):
    if not study.found:
        return []
    first = study.found[0]
    trained = [each.results.get("seconds", 0) for each in study.found]
    facts = {"device": first.content["device"], "versions": ", ".join(f"{name} {version}" for name, version in first.content["versions"].items()),
             "commit": first.content["commit"], "data": f"{first.content['data']['name']}, {first.content['data']['fingerprint']}",
             "parameters": ", ".join(f"{group} {runs[0].results['parameters']:,}" for group, runs in study.groups.items() if runs[0].results),
             "training took": f"{sum(trained):.0f} s in total", "measuring took": f"{sum(each.content['seconds'] for each in study.found):.0f} s in total"}
    return [(name, value) for name, value in facts.items() if value]


def _css(color):
    return "#{:02x}{:02x}{:02x}".format(*(int(round(255 * c)) for c in color))
