"""Tables of numbers: accuracy under each attack, the configs side by side, what it ran on; for the page and for the terminal."""
from vmamba_jax.core.statistics import accuracy_interval
from vmamba_jax.reports.figures import norm_name, radius_name


def accuracy(runs):
    """Rows of the main table: (columns, [(label, [cell, ...]), ...]), a cell {"value", "half"} being fractions, half the 95 % interval."""
    attacks = {name: result for run in runs for name, result in run.evaluation["attacks"].items()}
    columns = ["clean"] + [attack_name(result) for result in attacks.values()]
    rows = []
    for run in runs:
        results = run.evaluation["attacks"]
        values = [run.evaluation["accuracy"]] + [results.get(name, {}).get("robust_accuracy") for name in attacks]
        rows.append((run.label, [_cell(value, run.evaluation["examples"]) for value in values]))
    return columns, rows


def attack_name(result):
    """An attack in a few words: its name, its norm and its radius, as far as it has them."""
    radius = "unbounded" if result["eps"] is None else radius_name(result["eps"])
    return f"{result['label']}, {norm_name(result['norm'])} {radius}"


def text(runs):
    """The main table for a terminal."""
    columns, rows = accuracy(runs)
    lines = [["", *columns]] + [[label, *("-" if c is None else percent(c["value"]) for c in cells)] for label, cells in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
    return "\n".join("  ".join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]) for line in lines)


def percent(fraction):
    """0.9833 -> "98.3 %"."""
    return f"{100 * fraction:.1f} %"


def configs(runs):
    """The runs' configs, flattened: [(field, [value of each run], whether they differ), ...]."""
    flat = [_flatten(run.config) for run in runs]
    fields = list(dict.fromkeys(field for config in flat for field in config))
    rows = [(field, [config.get(field, "") for config in flat]) for field in fields]
    return [(field, values, len(set(values)) > 1) for field, values in rows]


def environment(runs):
    """What the runs ran on and with: [(name, value), ...], several values joined where runs differ."""
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
    return {"value": value, "half": (high - low) / 2}


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
