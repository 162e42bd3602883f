"""The mender's page, its JSON and Markdown summaries and its terminal text, drawn from saved results alone."""
import pathlib

from vmamba_jax.core import files
from vmamba_jax.reports import claims, page
from vmamba_jax.reports.mender import figures as mender_figures
from vmamba_jax.reports.mender import results

COLUMNS = {"test": "test", "conflict": "conflict", "plain": "no cue", "attacked": "under attack"}


def write_mender(folder, *, commands=()):
    """Write mender.html, mender.json (claims and accuracies) and mender.md to a study's folder. Returns the page's path.

    Args:
        folder: of `experiments.mender`.
        commands: shell lines that reproduce it.
    """
    folder = pathlib.Path(folder)
    study = results.read_mender(folder)
    files.write_json(folder / "mender.json", {"claims": results.judged(study), "accuracy": results.accuracy_rows(study), "ranking": results.ranked(study)})
    page.put(folder / "mender.md", mender_md(study))
    return page.put(folder / "mender.html", render_mender(study, commands=commands))


def render_mender(study, *, commands=()):
    """The page as text; without any finished run it says so."""
    rows = results.accuracy_rows(study)
    done = bool(study.findings)
    index = study.sweep.index
    by = {(row["group"], row["metric"]): row for row in rows}
    return page.draw(
        "mender.html", title=index["config"]["title"], commands=commands, environment=study.sweep.environment, done=done, claims=results.judged(study),
        accuracy=(study.groups, [(name, [by.get((group, metric)) for group in study.groups]) for metric, name in COLUMNS.items()]),
        value=claims.value, interval=claims.interval, sweep=study.sweep, missing=[each for each in study.sweep.runs if not each.done],
        examples_of=study.findings[0].examples if done else 0, attack=study.findings[0].attack if done else "", drawn=_drawn(study) if done else {},
        ranked=results.ranked(study))


def _drawn(study):
    return {"external": mender_figures.scores(study, "external"), "internal": mender_figures.scores(study, "internal"),
            "classes": mender_figures.by_class(study), "maps": mender_figures.maps(study),
            "attacked": mender_figures.scores(study, "external", ("base", "both", "adversarial"), "attacked"),
            "robust": mender_figures.accuracies(study, "attacked"), "conflict": mender_figures.accuracies(study, "conflict"),
            "adversarial": mender_figures.scores(study, "external", ("base", "adversarial"))}


def _accuracy(row):
    if row is None:
        return ""
    return f"{100 * row['mean']:.1f}" + (f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" if row["n"] > 1 else "")


def _tables(study):
    """((columns, rows) of accuracies, (columns, rows) of claims), cells as text."""
    by = {(row["group"], row["metric"]): row for row in results.accuracy_rows(study)}
    accuracy = (["group", "seeds", *(f"{name}, %" for name in COLUMNS.values())],
                [[group, len(study.of(group)), *(_accuracy(by.get((group, metric))) for metric in COLUMNS)] for group in study.groups])
    judged = (["claim", "from", "difference", "95 % interval", "verdict"],
              [[f"{each['sentence']} ({' - '.join(filter(None, (each['group'], each['against'])))})", each["source"], claims.value(each), claims.interval(each),
                each["verdict"]] for each in results.judged(study)])
    return accuracy, judged


def mender_md(study):
    """Accuracies and claims as two GitHub Markdown tables."""
    return claims.markdown_tables(_tables(study))


def mender_text(study):
    """Accuracies and claims for a terminal."""
    return claims.text_tables(_tables(study))
