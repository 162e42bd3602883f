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
CONTROL = "MambaOut"  # the family of VMamba's blocks without the scan
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
    found = [("Attacks and size", [_stronger(study), _no_scaling(study)]),
             ("Where the attacker's gradient goes", [_through(study, ("B", "C"), "above"), _through(study, ("delta",), "below")]),
             ("Where the image is disturbed", [_continuity(study), _center(study)])]
    if not controlled(study):
        return found
    without = f"a {CONTROL} of its size, which has no scan"
    return [*found, ("The scan itself, with a network without it as the control", [
        _stronger(study, controlled(study), f"Under whole-image and patch attacks, a VMamba is more accurate than {without}."),
        _continuity(study, controlled(study), f"Breaking the continuity of the image costs a VMamba more accuracy than {without}."),
        _center(study, controlled(study), f"The loss falls faster with the disturbance's distance from the image center in a VMamba than in {without}.")])]


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


def _stronger(study, compared=None, sentence="Under whole-image and patch attacks, a VMamba is more accurate than a transformer of its size."):
    compared = pairs(study) if compared is None else compared
    found = [(f"{study.title(name)}: {a} minus {b}", correct(x) - correct(y)) for a, b in compared for name in study.of_kind("attack")
             if (x := _row(study, a, name)) and (y := _row(study, b, name)) and _comparable(x, y)]
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


def _continuity(study, compared=None, sentence="Breaking the continuity of the image costs a VMamba more accuracy than a transformer of its size."):
    """Accuracy lost to shuffling by a state space model minus that lost by the other model, image by image."""
    compared = pairs(study) if compared is None else compared
    found = [(f"{study.title(name)}, {x['x']}: {a} minus {b}", (correct(before_a) - correct(x)) - (correct(before_b) - correct(y))) for a, b in compared
             if (before_a := _row(study, a, "clean")) and (before_b := _row(study, b, "clean"))
             for name in study.in_group("shuffle") for x, y in zip(study.rows(a, name), study.rows(b, name), strict=False)]
    return _claim(sentence, "above", _compared(found), study)


def _center(study, compared=None,
            sentence="A VMamba loses more accuracy the closer to the image center the disturbance is: the loss falls with the distance."):
    """The slope of each state space model, or its difference from that of the other model of each pair."""
    slope = lambda model: (cell["slope"], cell["slope_error"]) if (cell := study.cell(model, "centre")).get("status") == "done" \
        and cell["slope_error"] is not None else None
    if compared is None:
        found = [(model, *measured) for model in study.labels("state space") if (measured := slope(model))]
    else:
        found = [(f"{a} minus {b}", x[0] - y[0], math.hypot(x[1], y[1])) for a, b in compared if (x := slope(a)) and (y := slope(b))]
    z = quantile(max(len(found), 1))
    made = [Comparison(label, b, b - z * error, b + z * error) for label, b, error in found]
    return dataclasses.replace(_claim(sentence, "below", made, study), unit=(100, "points for each step of the window outward"))


def _claim(sentence, side, comparisons, study):
    return Claim(sentence, judge(comparisons, side, study.margin), comparisons)


def controlled(study):
    """[(state space model, its control without a scan), ...], as `pairs`."""
    return pairs(study, [model["label"] for model in study.models if model["family"] == CONTROL])


def pairs(study, others=None):
    """[(state space model, other), ...]: to each state space model the other one nearest in parameters, if it has the same size.

    others: labels; None: the transformers.
    """
    others = study.labels("transformer") if others is None else others
    parameters = {model["label"]: model["parameters"] for model in study.models}
    found = []
    for a in study.labels("state space"):
        apart = lambda b, a=a: abs(math.log(parameters[a] / parameters[b]))
        nearest = min(others, key=apart, default=None)
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
