"""Tables of numbers: accuracy under each attack, configs side by side, the environment of a run."""
from vmamba_jax.core.statistics import accuracy_interval
from vmamba_jax.reports import labels
from vmamba_jax.reports.figures import norm_name, radius_name


def accuracy(runs):
    """The main table of a report.

    Args:
        runs: `Run`s with an evaluation.

    Returns:
        (columns, [(label, [cell, ...]), ...]): a cell is {"value", "low", "high"}, an accuracy in [0, 1] and its 95 % interval, or None.
    """
    attacks = {name: result for run in runs for name, result in run.evaluation["attacks"].items()}
    columns = ["clean"] + [attack_name(result) for result in attacks.values()]
    rows = []
    for run in runs:
        results = run.evaluation["attacks"]
        values = [run.evaluation["accuracy"]] + [results[name]["robust_accuracy"] if name in results else None for name in attacks]
        rows.append((run.label, [_cell(value, run.evaluation["examples"]) for value in values]))
    return columns, rows


def corruptions(runs):
    """Accuracy on corrupted images.

    Returns:
        [(run's label, columns, [(corruption, [cell, ...]), ...], sentence), ...], one for each run that was evaluated on them: a column for each
        severity and one for the mean, cells as in `accuracy`, and a sentence with the mean over all and the mean corruption error.
    """
    found = []
    for run in runs:
        measured = run.evaluation.get("corruptions")
        if not measured:
            continue
        rows, n = {}, run.evaluation["examples"]
        for row in measured["rows"]:
            rows.setdefault(row["corruption"], {})[row["severity"]] = row["accuracy"]
        severities = sorted({severity for values in rows.values() for severity in values})
        cells = [(name.replace("_", " "), [_cell(values[severity], n) for severity in severities] +
                  [{"value": sum(values.values()) / len(values), "low": None, "high": None}]) for name, values in rows.items()]
        mce = "" if measured["mce"] is None else f" Mean corruption error relative to AlexNet: {measured['mce']:.1f} %."
        found.append((run.label, [*(f"severity {severity}" for severity in severities), "mean"], cells,
                      f"Mean over corruptions and severities: {percent(measured['accuracy'])}.{mce}"))
    return found


def calibration(runs):
    """[(run's label, accuracy, mean confidence, expected calibration error, the adaptive one, number of bins), ...] of the runs that have it."""
    return [(run.label, *(percent(found[name]) for name in ("accuracy", "confidence", "ece", "adaptive_ece")), len(found["bins"]))
            for run in runs if (found := run.evaluation.get("calibration"))]


def states(runs):
    """[(run's label, [cell of each block, ...], number of images), ...] of the runs with scans: share of the scans' output that goes around them through D."""
    return [(run.label, [{name: row["skip"][name] for name in ("low", "high")} | {"value": row["skip"]["mean"]} for row in found["blocks"]], found["examples"])
            for run in runs if (found := run.evaluation.get("states"))]


def attack_name(result):
    """An attack's label, norm and radius: "PGD-20, L∞ 8/255"; "unbounded" for a radius of None."""
    radius = "unbounded" if result["eps"] is None else radius_name(result["eps"])
    return f"{current_label(result)}, {norm_name(result['norm'])} {radius}"


def current_label(result):
    """The label of a saved result, from the settings that it records; files of earlier versions lack the departures in theirs."""
    settings = result.get("attack")
    return labels.attack_label(settings) if isinstance(settings, dict) and settings.get("name") in labels.PROTOCOLS else result["label"]


def text(runs):
    """The tables of accuracy, corruptions, calibration and hidden states for a terminal."""
    columns, rows = accuracy(runs)
    shown = lambda cells: ["-" if cell is None else percent(cell["value"]) for cell in cells]
    blocks = [aligned([["", *columns]] + [[label, *shown(cells)] for label, cells in rows])]
    blocks += [f"{aligned([[label, *columns]] + [[name, *shown(cells)] for name, cells in rows])}\n{sentence}"
               for label, columns, rows, sentence in corruptions(runs)]
    blocks += [f"{label}: expected calibration error {ece}, in bins of equally many images {adaptive}; mean confidence {confidence}, accuracy {right}"
               for label, right, confidence, ece, adaptive, _ in calibration(runs)]
    blocks += [f"{label}: share of the scans' output that goes around them through D, by block: {', '.join(percent(cell['value']) for cell in cells)}"
               for label, cells, _ in states(runs)]
    return "\n\n".join(blocks)


def aligned(rows):
    """Rows of cells as text with aligned columns, the first to the left."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]) for row in rows)


def percent(fraction):
    """0.9833 -> "98.3 %"."""
    return f"{100 * fraction:.1f} %"


def interval(low, high):
    """"[96.4, 97.8]": an interval of accuracies in per cent."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def points(value):
    """A difference of accuracies as signed points: 0.0312 -> "+3.1"."""
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def configs(runs):
    """The runs' configs field by field: [(dotted name, [value of each run, "" if it has none], whether the values differ), ...]."""
    flat = [_flatten(run.config) for run in runs]
    fields = list(dict.fromkeys(field for config in flat for field in config))
    rows = [(field, [config[field] if field in config else "" for config in flat]) for field in fields]
    return [(field, values, len(set(values)) > 1) for field, values in rows]


def environment(runs):
    """[(name, value), ...] of seed, device, versions, data, commit and times; different values of several runs are joined."""
    found = {}
    for run in runs:
        results = run.results or run.evaluation
        names = ("seed", "device", "versions", "data", "commit", "finished")
        facts = {name: results.get(name) for name in names} | {"training took": _seconds(run.results), "attacks took": _seconds(run.evaluation)}
        for name, value in facts.items():
            if value not in (None, "", {}):
                shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
                found.setdefault(name, []).append(shown)
    return [(name, " · ".join(dict.fromkeys(values))) for name, values in found.items()]


def _cell(value, n):
    if value is None:
        return None
    low, high = accuracy_interval(value, n)
    return {"value": value, "low": low, "high": high}


def _seconds(results):
    return f"{results['seconds']:.0f} s" if "seconds" in results else None


def _flatten(config, prefix=""):
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat
