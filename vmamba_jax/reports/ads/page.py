"""The page of the study of Adaptive Scaling, its JSON and Markdown summaries and its terminal text, drawn from saved results alone."""
import pathlib

from vmamba_jax.core import files
from vmamba_jax.reports import claims, page
from vmamba_jax.reports.ads import figures as ads_figures
from vmamba_jax.reports.ads import results
from vmamba_jax.reports.sweep.summaries import change, percent


def write_ads(folder, *, commands=()):
    """Write ads.html, ads.json (claims, comparisons and accuracies) and ads.md to a study's folder. Returns the page's path.

    Args:
        folder: of `experiments.ads`.
        commands: shell lines that reproduce it.
    """
    folder = pathlib.Path(folder)
    study = results.read_ads(folder)
    files.write_json(folder / results.FILE, {"claims": results.judged(study), "helped": results.helped(study), "table": results.table(study),
                                             "answer": results.answer(study)})
    page.put(folder / "ads.md", ads_md(study))
    return page.put(folder / "ads.html", render_ads(study, commands=commands))


def render_ads(study, *, commands=()):
    """The page as text; without any finished run it says so."""
    index, done = study.sweep.index, bool(study.findings)
    rows = results.table(study)
    by = {(row["group"], row["metric"]): row for row in rows}
    return page.draw(
        "ads.html", title=index["config"]["title"], commands=commands, environment=study.sweep.environment, done=done, themes=results.THEMES,
        claims=results.judged(study), change=change, value=claims.value, interval=claims.interval, sides=sides, sweep=study.sweep,
        accuracy=(study.groups, [(name, [by[group, name] for group in study.groups]) for name in results.COLUMNS]),
        missing=[each for each in study.sweep.runs if not each.done], about_sets=_sets(study) if done else "",
        helped=results.helped(study), answer=results.answer(study), drawn=ads_figures.drawn(study) if done else {})


def sides(claim):
    """The groups that a claim's value is made of, as text."""
    return " \u2212 ".join(", ".join(side) for side in (claim["plus"], claim["minus"]) if side)


def _sets(study):
    content, base = study.findings[0].content, study.sweep.index["config"]["base"]
    examples = content["examples"]
    other = ", so that its row is of other images than PGD-10" if examples["first"] != examples["test"] else ""
    return (f"Clean accuracy and {content['attack']} at {base['evaluation']['attacks']['pgd']['eps']:g} on {examples['test']} test images, "
            f"{content['autoattack']} on the first {examples['first']}{other}; PGD on the first {examples['train']} training images for the "
            "generalization gap. Best: the checkpoint with the highest accuracy on validation images, under PGD for adversarial training; last: the final one.")


def _tables(study):
    """((columns, rows) of accuracies, of comparisons with AdS, of claims), cells as text."""
    by = {(row["group"], row["metric"]): row for row in results.table(study)}
    accuracy = (["group", "seeds", *results.COLUMNS], [[group, len(study.of(group)), *(percent(by[group, name]) for name in results.COLUMNS)]
                                                       for group in study.groups])
    helped = (["model", "AdS", "objective", "metric", "difference, points", "verdict"],
              [[each["model"], each["ads"], each["objective"], each["metric"], change(each), each["verdict"]] for each in results.helped(study)])
    judged = (["claim", "groups", "from", "value", "95 % interval", "verdict"],
              [[f"{results.THEMES[each['theme']]}: {each['sentence']}", sides(each), each["source"], claims.value(each), claims.interval(each), each["verdict"]]
               for each in results.judged(study)])
    return judged, accuracy, helped


def ads_md(study):
    """Claims, accuracies and comparisons as GitHub Markdown tables."""
    return claims.markdown_tables(_tables(study)) + (f"\n{results.answer(study)}\n" if results.answer(study) else "")


def ads_text(study):
    """Claims, accuracies and comparisons for a terminal."""
    return claims.text_tables(_tables(study)) + (f"\n\n{results.answer(study)}" if results.answer(study) else "")
