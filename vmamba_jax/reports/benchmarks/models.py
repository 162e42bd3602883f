"""Tables of a benchmark's models: speed, beside PyTorch's, the most expensive operations, memory of the input gradient."""
from vmamba_jax.reports.benchmarks.records import PASSES, backend, candidate, grouped, mib, select, short, table, times


def model_tables(run):
    text = []
    for (size, dtype), rows in grouped(select(run, "model"), "size", "dtype").items():
        text += [f"#### Models, {size} x {size} pixels, {dtype}\n",
                 table(["model", "pass", "batch", "ms", "quartiles", "fastest", "images/s", "temp MiB per device"],
                        [[candidate(row), row.get("attack", PASSES[row["pass"]]), row["batch"], *times(row, 1e3),
                          short(row["images_per_s"]), mib(row)] for row in rows], 2)]
    return text


def torch_tables(run):
    rows = select(run, "model")
    if not any(row["backend"] == "torch" for row in rows):
        return []
    groups = grouped(rows, "pass", "batch", "size", "dtype")
    theirs = list(dict.fromkeys(row["name"] for row in rows if row["backend"] == "torch"))
    lines = []
    for (which, batch, size, dtype), group in groups.items():
        known = {row["name"]: row["seconds"]["median"] for row in group if row["backend"] == "torch"}
        lines += [[candidate(row), PASSES[which], batch, size, dtype, *(f"{row['seconds']['median'] / known[name]:.2f}" if name in known else ""
                                                                         for name in theirs)]
                  for row in group if row["backend"] != "torch" and known]
    return ["#### Against PyTorch\n",
            "Our time over PyTorch's, measured in turn in one run: below 1, ours is faster. PyTorch's models are timm's, in the faster of "
            "the two memory layouts.\n", table(["model", "pass", "batch", "size", "dtype", *(f"/ {name}" for name in theirs)], lines, 2)]


def operation_tables(run):
    rows = [row for row in run["records"] if row.get("operations")]
    listed = lambda row: ", ".join(f"`{found['operation']}` {100 * found['share']:.0f} %" for found in row["operations"])
    return ["#### Most expensive operations\n",
            "Share of the time of all operations, from profiled calls; layers of one kind are summed. XLA's fusions have the name of their last "
            "operation, after the last two modules of its path.\n",
            table(["program", "pass", "batch", "operations"],
                  [[candidate(row), PASSES[row["pass"]], row["batch"], listed(row)] for row in rows], 2)] if rows else []


def memory_tables(run):
    text = []
    for (name, batch, size, dtype), rows in grouped(select(run, "memory"), "name", "batch", "size", "dtype").items():
        ours = next((row["temp_mib"] for row in rows if row["backend"] == "ours"), None)
        text += [f"#### Memory of the input gradient, {name}, batch {batch}, {size} x {size} pixels, {dtype}\n",
                 f"XLA's temporary memory per device, with the batch on {rows[0]['devices']} device{'s' * (rows[0]['devices'] > 1)}.\n",
                 table(["scan", "MiB per device", "of ours"], [[backend(row), mib(row), f"{row['temp_mib'] / ours:.2f}" if ours else ""]
                         for row in rows], 1)]
    return text
