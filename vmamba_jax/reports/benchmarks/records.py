"""The records of a benchmark file: selected, grouped, and as cells of a Markdown table."""
import numpy as np

PASSES = {"forward": "forward", "gradient": "forward + gradient", "training": "training step", "pgd": "attack",
          "kernel": "kernel alone", "convolution": "convolution alone"}
BACKENDS = {"reference": "`lax.scan` + autodiff", "associative": "`lax.associative_scan` + autodiff", "remat": "remat"}
BACKENDS["associative_scan"] = BACKENDS["associative"]   # its name in older files


def device(run):
    """The device of a run, in words."""
    found = run["device"]
    if run["kind"] in ("tpu_static_cycles", "gpu_static_code"):
        return f"{found['kind']} (compiled for, not run)"
    if found["platform"] == "cpu":
        return f"CPU {found['kind']}, {found['cores']} core{'s' * (found['cores'] > 1)}"
    return f"{found['kind']} x {found['count']}"


def slope(tokens, seconds):
    """Exponent of the growth of time with length, by least squares on logarithms; 1: linear."""
    return float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0])


def select(run, what):
    """The records of one kind of measurement; [] for a file of another kind."""
    return [row for row in run["records"] if row["what"] == what] if run["kind"] == "benchmark" else []


def grouped(rows, *fields):
    """{values of the fields: rows}, in the order in which they first occur."""
    found = {}
    for row in rows:
        found.setdefault(tuple(row.get(field) for field in fields), []).append(row)
    return found


def table(columns, rows, words):
    """A Markdown table; the first `words` columns are text."""
    lines = [columns, ["---" if i < words else "---:" for i in range(len(columns))], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines) + "\n"


def times(row, scale):
    found = {name: short(value * scale) for name, value in row["seconds"].items()}
    return found["median"], f"{found['q1']} to {found['q3']}", found["min"]


def candidate(row):
    return f"{row['name']} (torch)" if row["backend"] == "torch" else row["name"] if row["backend"] == "ours" else f"{row['name']}, {backend(row)}"


def backend(row):
    return BACKENDS.get(row["backend"], row["backend"])


def mib(row, field="temp_mib"):
    return short(row[field]) if field in row else ""


def short(value):
    """Three significant digits, no exponent."""
    return f"{float(f'{value:.3g}'):.12g}"
