"""The page of a sweep, and its summary files."""
import dataclasses
import pathlib

from vmamba_jax.reports import page, tables
from vmamba_jax.reports.sweep import claims, results, summaries
from vmamba_jax.reports.sweep import figures as sweep_figures

REPORTS = (("report.html", "evaluation"), ("training.html", "training"))


def render_sweep(sweep, *, commands=()):
    """The page as text.

    Args:
        sweep: `Sweep`. Links are relative to its folder.
        commands: shell lines that reproduce it.
    """
    rows = results.summary(sweep)
    first = {each.group: dataclasses.replace(each.run, label=each.group) for each in reversed(sweep.done)}
    first = [first[group] for group in sweep.groups if group in first]
    configs = [row for row in tables.configs(first) if row[0] != "seed"]
    return page.draw(
        "sweep.html", title=sweep.index["config"]["title"] or _title(sweep), about=sweep.index["config"]["about"], sweep=sweep,
        headline=_headline(sweep, rows), accuracy=_accuracy(sweep, rows), compared=[row for row in rows if row["difference"]],
        claims=claims.judged(sweep), rule=claims.RULE.format(margin=100 * sweep.margin), seeds=sweep_figures.seeds(sweep),
        curves=sweep_figures.curves(sweep), lines=[_line(sweep, each) for each in sweep.runs], missing=[each for each in sweep.runs if not each.done],
        single=[group for group in sweep.groups if _single(sweep, group)], runs=first, configs=configs, commands=commands, environment=_environment(sweep))


def write_sweep(folder, sweep, **options):
    """Write sweep.html, summary.csv, summary.md and summary.tex to a folder; options as of `render_sweep`. Returns the page's path."""
    folder = pathlib.Path(folder)
    for name, make in (("summary.csv", summaries.summary_csv), ("summary.md", summaries.summary_md), ("summary.tex", summaries.summary_tex)):
        page.put(folder / name, make(sweep))
    return page.put(folder / "sweep.html", render_sweep(sweep, **options))


def _title(sweep):
    base = sweep.index["config"]["base"]
    return f"{base['model']['name']} on {base['data']['name']}: {len(sweep.groups)} groups of runs"


def _headline(sweep, rows):
    """The group of the highest mean under the attack of the accuracy curve, as a sentence."""
    rows = [row for row in rows if row["metric"] == sweep.headline]
    if not rows:
        return "No run is done."
    best = max(rows, key=lambda row: row["mean"])
    interval = f"95 % interval {100 * best['low']:.1f} to {100 * best['high']:.1f}, {best['n']} seeds" if best["n"] > 1 else "one seed"
    accuracy = "clean accuracy" if sweep.headline == results.CLEAN else f"accuracy under {sweep.headline}"
    return f"Highest mean {accuracy}: {best['group']}, {tables.percent(best['mean'])} ({interval})."


def _accuracy(sweep, rows):
    """(groups, [(name, [seeds or row of the summary of each group]), ...]); the control is named as such."""
    by = {(row["group"], row["metric"]): row for row in rows}
    named = [f"{group} (control)" if group == sweep.control and len(sweep.groups) > 1 else group for group in sweep.groups]
    seeds = [sum(each.group == group for each in sweep.done) for group in sweep.groups]
    return named, [("seeds", seeds), *((metric, [by.get((group, metric)) for group in sweep.groups]) for metric in sweep.values)]


def _single(sweep, group):
    return sum(each.group == group for each in sweep.done) == 1


def _line(sweep, each):
    """A run's row: what the page links to, and its results."""
    folder = sweep.folder / each.name
    return {"run": each, "links": [(f"{each.name}/{file}", name) for file, name in REPORTS if (folder / file).is_file()],
            "clean": each.run.evaluation["accuracy"] if each.done else None, "robust": each.run.headline["robust_accuracy"] if each.done and each.run.headline else None,
            "error": f"{each.name}/error.txt" if each.status == "failed" and (folder / "error.txt").is_file() else ""}


def _environment(sweep):
    index, seconds = sweep.index, sum(each.record.get("seconds", 0) for each in sweep.runs)
    hosts = dict.fromkeys(each.record["host"] for each in sweep.runs if each.record)
    facts = {"seeds": ", ".join(map(str, index["config"]["seeds"])) or "the base's", "device": index["device"],
             "versions": ", ".join(f"{name} {version}" for name, version in index["versions"].items()), "commit": index["commit"],
             "hosts": ", ".join(hosts), "runs took": f"{seconds:.0f} s in total"}
    return [(name, value) for name, value in facts.items() if value]
