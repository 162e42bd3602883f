"""Claims about VMamba, and the verdict of a study's cells on each: seen, not seen or inconclusive.

A claim is a sentence with a list of comparisons, each an estimate with an interval; the intervals of one claim hold jointly at 95 % (Bonferroni).
`judge` has the rule.

Source: Du, Li & Xu, arXiv 2403.10935.
"""
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vmamba_jax.core.statistics import differences_interval, paired_interval, quantile

# An attack that leaves both models at or below this accuracy does not separate them; one that lowers accuracy by no more says nothing about gradients.
FLOOR = 0.05
ALIKE = 2.0   # largest ratio of the parameter counts of two models of the same size
RULE = ("A comparison is the difference of two accuracies on the same images, with its paired interval (Agresti and Min 2005: half an image added to "
        "each of the four cells); the intervals of one claim hold jointly at 95 % (Bonferroni). Seen: at least one interval lies entirely on the "
        "claimed side of 0, and none entirely on the other. Not seen: at least one lies entirely on the other side, or all lie within "
        "\u00b1{margin:.0f} points. Otherwise inconclusive. A claim of \u201cnot more\u201d is seen if no interval extends "
        "above +{margin:.0f} points, and not seen if one lies entirely above 0.")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An estimate with its interval, in the unit of its claim."""
    label: str
    difference: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim with its comparisons and its verdict.

    Attributes:
        sentence: the claim.
        verdict: "seen", "not seen" or "inconclusive".
        comparisons: `Comparison`s that the verdict rests on.
        unit: (factor, name) for showing differences.
    """
    sentence: str
    verdict: str
    comparisons: Sequence[Comparison]
    unit: tuple = (100, "points")


def claims(study):
    """[(heading, [Claim, ...]), ...] in the order of the paper."""
    return [("Attacks and size", [_stronger(study), _no_scaling(study)]),
            ("Where the attacker's gradient goes", [_through(study, ("B", "C"), "above"), _through(study, ("delta",), "below")]),
            ("Where the image is disturbed", [_continuity(study), _center(study)])]


def judge(comparisons, claimed, margin):
    """The verdict on a claim: "seen", "not seen" or "inconclusive"; `RULE` states the rule.

    Args:
        comparisons: `Comparison`s.
        claimed: side of 0 that the claim names: "above", "below" or "not above".
        margin: largest absolute difference that counts as none.
    """
    if not comparisons:
        return "inconclusive"
    if claimed == "below":
        comparisons, claimed = [Comparison(c.label, -c.difference, -c.high, -c.low) for c in comparisons], "above"
    above, below = any(c.low > 0 for c in comparisons), any(c.high < 0 for c in comparisons)
    if claimed == "not above":
        small = all(c.high <= margin for c in comparisons)
        return "seen" if small else "not seen" if above else "inconclusive"
    if above and not below:
        return "seen"
    return "not seen" if below or all(-margin <= c.low and c.high <= margin for c in comparisons) else "inconclusive"


def _compared(labelled):
    """Comparisons of [(label, differences per image), ...], with intervals that hold jointly."""
    return [Comparison(label, float(d.mean()), *differences_interval(d, len(labelled))) for label, d in labelled]


def correct(row):
    """(n,) int array, 1 for each image that the row classifies correctly."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(row["right"]), np.uint8))[:row["examples"]].astype(int)


def _stronger(study):
    found = [(f"{study.title(name)}: {a} minus {b}", correct(x) - correct(y)) for a, b in pairs(study) for name in study.of_kind("attack")
             if (x := _row(study, a, name)) and (y := _row(study, b, name)) and _comparable(x, y)]
    sentence = "Under whole-image and patch attacks, a VMamba is more accurate than a transformer of its size."
    return _claim(sentence, "above", _compared(found), study)


def _no_scaling(study):
    found = [(f"{study.title(name)}: {large} minus {small}", correct(y) - correct(x)) for small, large in sizes(study) for name in study.of_kind("attack")
             if (x := _row(study, small, name)) and (y := _row(study, large, name)) and _comparable(x, y)]
    return _claim("Larger VMambas are not more robust than smaller ones.", "not above", _compared(found), study)


def _through(study, components, side):
    found = [(f"{model}: {row['component']}", row, cell["examples"]) for model in study.labels("state space")
             if (cell := study.cell(model, "components")).get("rows") and (clean := _row(study, model, "clean"))
             and clean["accuracy"] - cell["accuracy"] > FLOOR for row in cell["rows"] if row["component"] in components]
    made = [Comparison(label, row["difference"], *paired_interval(row["gained"], row["lost"], n, len(found))) for label, row, n in found]
    sentence = {"above": "The gradients through B and C make attacks stronger: accuracy is higher if they are blocked.",
                "below": "The gradient through the step size delta makes attacks weaker: accuracy is lower if it is blocked."}[side]
    return _claim(sentence, side, made, study)


def _continuity(study):
    """Accuracy lost to shuffling by a state space model minus that lost by a transformer, image by image."""
    found = [(f"{study.title(name)}, {x['x']}: {a} minus {b}", (correct(before_a) - correct(x)) - (correct(before_b) - correct(y))) for a, b in pairs(study)
             if (before_a := _row(study, a, "clean")) and (before_b := _row(study, b, "clean"))
             for name in study.in_group("shuffle") for x, y in zip(study.rows(a, name), study.rows(b, name), strict=False)]
    sentence = "Breaking the continuity of the image costs a VMamba more accuracy than a transformer of its size."
    return _claim(sentence, "above", _compared(found), study)


def _center(study):
    cells = [(model, cell) for model in study.labels("state space") if (cell := study.cell(model, "centre")).get("status") == "done"
             and cell["slope_error"] is not None]
    z = quantile(max(len(cells), 1))
    made = [Comparison(model, b, b - z * error, b + z * error) for model, cell in cells for b, error in [(cell["slope"], cell["slope_error"])]]
    sentence = "A VMamba loses more accuracy the closer to the image center the disturbance is: the loss falls with the distance."
    return dataclasses.replace(_claim(sentence, "below", made, study), unit=(100, "points for each step of the window outward"))


def _claim(sentence, side, comparisons, study):
    return Claim(sentence, judge(comparisons, side, study.margin), comparisons)


def pairs(study):
    """[(state space model, transformer), ...]: to each state space model the transformer nearest in parameters, if it has the same size."""
    parameters = {model["label"]: model["parameters"] for model in study.models}
    found = []
    for a in study.labels("state space"):
        apart = lambda b, a=a: abs(math.log(parameters[a] / parameters[b]))
        nearest = min(study.labels("transformer"), key=apart, default=None)
        if nearest is not None and apart(nearest) <= math.log(ALIKE):
            found.append((a, nearest))
    return found


def sizes(study):
    """[(smaller, larger), ...] of VMambas that are neighbors in parameters."""
    ordered = sorted((model for model in study.models if model["family"] == "VMamba"), key=lambda model: model["parameters"])
    return [(a["label"], b["label"]) for a, b in zip(ordered, ordered[1:], strict=False) if b["parameters"] > a["parameters"]]


def _row(study, model, probe):
    rows = study.rows(model, probe)
    return rows[0] if rows else None


def _comparable(x, y):
    return x["examples"] == y["examples"] and max(x["accuracy"], y["accuracy"]) > FLOOR
