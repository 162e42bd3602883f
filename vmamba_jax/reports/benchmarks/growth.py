"""Tables of the growth of a benchmark's time and memory with resolution or length."""
import math

from vmamba_jax.reports.benchmarks.records import PASSES, candidate, grouped, mib, select, short, slope, table, times


def growth_tables(run):
    text = []
    for (name, which, batch, dtype), rows in grouped(select(run, "growth"), "name", "pass", "batch", "dtype").items():
        tokens, seconds = [row["tokens"] for row in rows], [row["seconds"]["median"] for row in rows]
        exponent = f"Time is proportional to length to the power {slope(tokens, seconds):.2f} (1: linear).\n" if len(set(tokens)) > 1 else "One size only.\n"
        text += [f"#### Growth, {name}, {PASSES[which]}, batch {batch}, {dtype}\n", exponent,
                 table(["pixels", "length (pixels / 16)", "GFLOPs", "images/s", "ms", "quartiles", "fastest", "temp MiB", "peak MiB"],
                        [[f"{row['size']} x {row['size']}", f"{row['tokens']:g}", short(row["gflops"]) if "gflops" in row else "",
                          short(row["images_per_s"]) if "images_per_s" in row else "", *times(row, 1e3), mib(row), mib(row, "peak_mib")] for row in rows], 1)]
    return text


def slope_tables(run):
    """Exponents of the growth of each model of a run with several."""
    lines = []
    for (name, which, batch), rows in grouped(select(run, "growth"), "name", "pass", "batch").items():
        values = {"gflops": [row.get("gflops") for row in rows], "seconds": [row["seconds"]["median"] for row in rows],
                  "temp_mib": [row.get("temp_mib") for row in rows]}
        sizes = [row["tokens"] for row in rows]
        if len(set(sizes)) > 1:
            ends = lambda y, sizes=sizes: "" if None in y or min(y) <= 0 else f"{slope(sizes, y):.2f} ({slope(sizes[-2:], y[-2:]):.2f})"
            lines.append([name, PASSES[which], batch, *(ends(y) for y in values.values())])
    if len(lines) < 2:
        return []
    return ["#### Cost against resolution\n",
            f"Exponent of the growth with the number of pixels, by least squares on logarithms over {len(sizes)} sizes; in parentheses between the two "
            "largest. 1 is linear, 2 quadratic. Memory is XLA's temporary memory.\n",
            table(["model", "pass", "batch", "multiply-adds", "time", "memory"], lines, 2)]


def sequence_tables(run):
    rows, text = select(run, "sequence"), []
    for (name, which, batch, channels), group in grouped(rows, "name", "pass", "batch", "channels").items():
        theirs = {row["length"]: row["seconds"]["median"] for row in group if row["backend"] == "torch"}
        ours = {row["length"]: row for row in group if row["backend"] == "ours"}
        counted = all("arithmetic" in row for row in ours.values())
        text += [f"#### Sequence layer {name}, {PASSES[which]}, batch {batch}, {channels} channels\n", _powers(ours, counted),
                 table(["layer", "length", "ms", "quartiles", "fastest", "ours / torch", "temp MiB"] + ["operations, 1e9"] * counted,
                        [[candidate(row), row["length"], *times(row, 1e3),
                          f"{row['seconds']['median'] / theirs[row['length']]:.2f}" if row["backend"] == "ours" and row["length"] in theirs else "",
                          mib(row)] + [short(row["arithmetic"] / 1e9) if row["backend"] == "ours" else ""] * counted for row in group], 1)]
    return text


def _powers(ours, counted):
    """The sentence on the growth of a layer's time, and of its operations where they are counted."""
    if len(ours) < 2:
        return "One length only.\n"
    lengths = list(ours)
    power = lambda values: f"{slope(lengths, values):.2f}"
    operations = f", its operations to the power {power([row['arithmetic'] for row in ours.values()])}" if counted else ""
    return (f"Our time is proportional to length to the power {power([row['seconds']['median'] for row in ours.values()])}{operations}; "
            f"L log L has {power([length * math.log(length) for length in lengths])}.\n")
