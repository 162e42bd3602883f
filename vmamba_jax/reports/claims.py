"""Claims about runs over seeds: a number for each seed, its 95 % interval and a verdict, and how both are shown."""
from vmamba_jax.core import statistics
from vmamba_jax.reports import tables
from vmamba_jax.reports.sweep.summaries import markdown

MARGIN = 0.02  # a difference of accuracies whose interval lies within it is no difference


def judge(values, margin=0.0, claimed="above"):
    """{"n", "mean", "sd", "low", "high", "values", "verdict"}.

    "above": seen if the interval is above 0, not seen if it is below 0 or within plus or minus the margin. "not above": seen if the interval does not
    extend above the margin, not seen if it is above 0. Otherwise, and for one seed, inconclusive.

    Args:
        values: one for each seed.
        margin: see above.
        claimed: "above" or "not above".
    """
    found, verdict = statistics.mean_interval(values), "inconclusive"
    if found["n"] > 1:
        low, high = found["low"], found["high"]
        if claimed == "not above":
            verdict = "seen" if high <= margin else "not seen" if low > 0 else verdict
        elif low > 0:
            verdict = "seen"
        elif high < 0 or (-margin <= low and high <= margin):
            verdict = "not seen"
    return found | {"values": list(values), "verdict": verdict}


def value(claim):
    """A claim's mean: signed points of accuracy, or a signed number."""
    return tables.points(claim["mean"]) if claim["unit"] == "points" else f"{claim['mean']:+.2f}"


def interval(claim):
    """A claim's 95 % interval as text; "one seed" without."""
    if claim["n"] < 2:
        return "one seed"
    scale = 100 if claim["unit"] == "points" else 1
    return f"{scale * claim['low']:+.{1 if scale == 100 else 2}f} to {scale * claim['high']:+.{1 if scale == 100 else 2}f}"


def markdown_tables(found):
    """GitHub Markdown of some (columns, rows), cells as text."""
    line = lambda cells: "| " + " | ".join(map(markdown, cells)) + " |"
    return "\n".join("\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)]) + "\n" for columns, rows in found)


def text_tables(found):
    """Some (columns, rows) for a terminal; a sentence if there are no rows."""
    return "\n\n".join(tables.aligned([columns, *rows]) for columns, rows in found if rows) or "no run is done"
