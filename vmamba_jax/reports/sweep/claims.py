"""Statements about the groups of a sweep, and its verdict on each: seen, not seen or inconclusive."""
from vmamba_jax.core import statistics

SIDES = ("above", "alike")
RULE = ("Each difference is paired by seed, with its 95 % interval (Student's t). A statement that one group is more accurate is seen if the interval lies "
        "above 0, and not seen if it lies below 0 or within ±{margin:.3g} points. A statement that two groups are as accurate is seen if the interval lies "
        "within ±{margin:.3g} points, and not seen if it excludes 0. All else, and one seed, is inconclusive.")


def judged(sweep):
    """[{"sentence", "group", "against", "claimed", "metric", "verdict", "n", "mean", "low", "high"}, ...]: each statement under each accuracy.

    A statement is (sentence, group, other group, "above" or "alike") in the sweep's config; those without a common seed of both groups are left out.
    """
    rows = []
    for sentence, group, against, claimed in sweep.index["config"].get("claims", ()):
        for metric, groups in sweep.values.items():
            ours, others = groups.get(group, {}), groups.get(against, {})
            if seeds := [seed for seed in ours if seed in others]:
                found = statistics.mean_interval([ours[seed] - others[seed] for seed in seeds])
                rows.append({"sentence": sentence, "group": group, "against": against, "claimed": claimed, "metric": metric,
                             "verdict": verdict(found, claimed, sweep.margin), **found})
    return rows


def verdict(found, claimed, margin):
    """The verdict on a difference with its interval, as `RULE` states.

    Args:
        found: of `statistics.mean_interval`.
        claimed: one of `SIDES`.
        margin: largest absolute difference that counts as none.
    """
    if found["n"] < 2:
        return "inconclusive"
    above, below, none = found["low"] > 0, found["high"] < 0, -margin <= found["low"] and found["high"] <= margin
    if claimed == "alike":
        return "seen" if none else "not seen" if above or below else "inconclusive"
    return "seen" if above else "not seen" if below or none else "inconclusive"
