"""What the paper claims, as sentences that a study's cells can bear out or not: seen, not seen, or too little to say.

The claims are those of Du, Li, Xu (arXiv 2403.10935). A sentence is a list of comparisons, each an estimate with an interval of 95 % over all
comparisons of the sentence together (Bonferroni); see `judge` for the rule.
"""
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vmamba_jax.core.statistics import differences_interval, paired_interval, quantile

# Where both models are right on no more than this share, an attack tells them not apart; one that breaks no more tells nothing of gradients.
FLOOR = 0.05
ALIKE = 2.0   # models of one size: neither has more than so many times the other's parameters
RULE = ("A comparison is a difference between shares of the same images, with its paired interval (Agresti and Min 2005: half an image added to "
        "each of the four cells), at 95 % over all comparisons of the sentence together (Bonferroni). Seen: at least one interval lies wholly on the "
        "side that the sentence says, and none wholly on the other. Not seen: at least one lies wholly on the other side, or all lie within "
        "\u00b1{margin:.0f} points. Else it is too little to say. A sentence that says \u201cnot more\u201d is seen where no interval reaches "
        "beyond +{margin:.0f} points, and not seen where one lies wholly above 0.")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An estimate with its interval, in the unit of its sentence."""
    label: str
    difference: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence, what was compared for it, and the verdict: "seen", "not seen" or "too little to say". unit: what differences are multiplied by,
    and called."""
    sentence: str
    verdict: str
    comparisons: Sequence[Comparison]
    unit: tuple = (100, "points")


def claims(study):
    """[(heading, [Claim, ...]), ...] in the paper's order."""
    return [("Attacks and size", [_stronger(study), _no_scaling(study)]),
            ("Where the attacker's gradient goes", [_through(study, ("B", "C"), "above"), _through(study, ("delta",), "below")]),
            ("Where the image is disturbed", [_continuity(study), _centre(study)])]


def judge(comparisons, claimed, margin):
    """The verdict on a sentence.

    comparisons: `Comparison`s. claimed: the side of 0 that the sentence says, "above", "below", or "not above".
    margin: differences within it count as none.
    """
    if not comparisons:
        return "too little to say"
    if claimed == "below":
        comparisons, claimed = [Comparison(c.label, -c.difference, -c.high, -c.low) for c in comparisons], "above"
    above, below = any(c.low > 0 for c in comparisons), any(c.high < 0 for c in comparisons)
    if claimed == "not above":
        small = all(c.high <= margin for c in comparisons)
        return "seen" if small else "not seen" if above else "too little to say"
    if above and not below:
        return "seen"
    return "not seen" if below or all(-margin <= c.low and c.high <= margin for c in comparisons) else "too little to say"


def _compared(labelled):
    """Comparisons of [(label, differences of images), ...], each widened for their number."""
    return [Comparison(label, float(d.mean()), *differences_interval(d, len(labelled))) for label, d in labelled]


def right(row):
    """(n,) int, 1 where the row's image was read rightly."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(row["right"]), np.uint8))[:row["examples"]].astype(int)


def _stronger(study):
    found = [(f"{study.title(name)}: {a} less {b}", right(x) - right(y)) for a, b in pairs(study) for name in study.of_kind("attack")
             if (x := _row(study, a, name)) and (y := _row(study, b, name)) and _comparable(x, y)]
    sentence = "Under whole-image and patch attacks, a VMamba is right more often than a transformer of its size."
    return _claim(sentence, "above", _compared(found), study)


def _no_scaling(study):
    found = [(f"{study.title(name)}: {large} less {small}", right(y) - right(x)) for small, large in sizes(study) for name in study.of_kind("attack")
             if (x := _row(study, small, name)) and (y := _row(study, large, name)) and _comparable(x, y)]
    return _claim("Larger VMambas are not more robust than smaller ones.", "not above", _compared(found), study)


def _through(study, components, side):
    found = [(f"{model}: {row['component']}", row, cell["examples"]) for model in study.labels("state space")
             if (cell := study.cell(model, "components")).get("rows") and (clean := _row(study, model, "clean"))
             and clean["accuracy"] - cell["accuracy"] > FLOOR for row in cell["rows"] if row["component"] in components]
    made = [Comparison(label, row["difference"], *paired_interval(row["gained"], row["lost"], n, len(found))) for label, row, n in found]
    sentence = {"above": "The gradients through B and C help the attacker: blocking them leaves more images right.",
                "below": "The gradient through the step size delta misleads the attacker: blocking it leaves fewer images right."}[side]
    return _claim(sentence, side, made, study)


def _continuity(study):
    """What shuffling costs a state space model, less what it costs a transformer, image by image."""
    found = [(f"{study.title(name)}, {x['x']}: {a} less {b}", (right(before_a) - right(x)) - (right(before_b) - right(y))) for a, b in pairs(study)
             if (before_a := _row(study, a, "clean")) and (before_b := _row(study, b, "clean"))
             for name in study.in_group("shuffle") for x, y in zip(study.rows(a, name), study.rows(b, name), strict=False)]
    sentence = "Breaking the continuity of the image costs a VMamba more images than a transformer of its size."
    return _claim(sentence, "above", _compared(found), study)


def _centre(study):
    cells = [(model, cell) for model in study.labels("state space") if (cell := study.cell(model, "centre")).get("status") == "done"
             and cell["slope_error"] is not None]
    z = quantile(max(len(cells), 1))
    made = [Comparison(model, b, b - z * error, b + z * error) for model, cell in cells for b, error in [(cell["slope"], cell["slope_error"])]]
    sentence = "The nearer to the centre a VMamba's image is disturbed, the more images it loses: the loss falls with the distance."
    return dataclasses.replace(_claim(sentence, "below", made, study), unit=(100, "points for each step of the window outwards"))


def _claim(sentence, side, comparisons, study):
    return Claim(sentence, judge(comparisons, side, study.margin), comparisons)


def pairs(study):
    """(state space model, transformer) of one size: to each of the former the nearest of the latter in parameters, where one is near enough."""
    parameters = {model["label"]: model["parameters"] for model in study.models}
    found = []
    for a in study.labels("state space"):
        apart = lambda b, a=a: abs(math.log(parameters[a] / parameters[b]))
        nearest = min(study.labels("transformer"), key=apart, default=None)
        if nearest is not None and apart(nearest) <= math.log(ALIKE):
            found.append((a, nearest))
    return found


def sizes(study):
    """(smaller, larger) VMambas, neighbours in parameters."""
    ordered = sorted((model for model in study.models if model["family"] == "VMamba"), key=lambda model: model["parameters"])
    return [(a["label"], b["label"]) for a, b in zip(ordered, ordered[1:], strict=False) if b["parameters"] > a["parameters"]]


def _row(study, model, probe):
    rows = study.rows(model, probe)
    return rows[0] if rows else None


def _comparable(x, y):
    return x["examples"] == y["examples"] and max(x["accuracy"], y["accuracy"]) > FLOOR
