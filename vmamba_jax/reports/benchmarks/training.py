"""Tables of a benchmark's training: steps, scaling over devices, the ladder of accelerations, compile times."""
from vmamba_jax.reports.benchmarks.records import PASSES, candidate, grouped, mib, select, short, table, times

MODES = {"global": "constant global batch", "per_device": "constant batch per device"}


def training_tables(run):
    text = []
    for (attack,), rows in grouped(select(run, "training"), "attack").items():
        lines = []
        for row in rows:
            theirs = next((other["images_per_s"] for other in rows if other["backend"] == "torch" and other["name"] == row["name"]), None)
            ratio = f"{row['images_per_s'] / theirs:.2f}" if theirs and row["backend"] == "ours" else ""
            outside = f"{100 * row['outside_model']:.1f} %" if "outside_model" in row else ""
            lines.append([candidate(row), f"{row['size']} x {row['size']}", row["batch"], *times(row, 1e3), short(row["images_per_s"]), ratio,
                          short(row["peak_mib"]) if "peak_mib" in row else "", outside])
        text += [f"#### Training step on {attack}\n",
                 "A step of PGD adversarial training: the attack, then one update with AdamW. `of torch` is the ratio of images per second to torch's row of the same "
                 "network. Peak memory is XLA's plan over all devices, or the most that torch had allocated. `outside the model` is the share of the step's "
                 "time in operations that are in no pass of the model, from profiled steps.\n",
                 table(["model", "pixels", "batch", "ms", "quartiles", "fastest", "images/s", "of torch", "peak MiB", "outside the model"], lines, 1)]
    return text


def scaling_tables(run):
    text = []
    for (name, size, attack), rows in grouped(select(run, "scaling"), "name", "size", "attack").items():
        lines = []
        for mode, group in grouped(rows, "mode").items():
            one = next((row["images_per_s"] for row in group if row["devices"] == 1), None)
            lines += [[MODES[mode[0]], row["devices"], row["batch"], *times(row, 1e3), short(row["images_per_s"]),
                       f"{row['images_per_s'] / one:.2f}" if one else "", mib(row)] for row in group]
        text += [f"#### Scaling, {name}, training step on {attack}, {size} x {size} pixels\n", "`of one device`: images per second over those of one device.",
                 f"The devices of a CPU share its {run['device']['cores']} cores, so this measures the overhead of sharding a step, not the speedup of "
                 "more chips.\n" if run["device"]["platform"] == "cpu" else "\n",
                 table(["scaling", "devices", "batch", "ms", "quartiles", "fastest", "images/s", "of one device", "temp MiB per device"],
                        lines, 1)]
    return text


def ladder_tables(run):
    text = []
    for (size, batch, dtype), rows in grouped(select(run, "ladder"), "size", "batch", "dtype").items():
        lines = []
        for (name,), row in grouped(rows, "name").items():
            passes, published = {each["pass"]: each for each in row}, row[0]["published"]
            speed = [short(passes[which]["images_per_s"]) if which in passes else "" for which in ("forward", "training")]
            lines.append([name, row[0]["change"], f"{row[0]['parameters'] / 1e6:.1f} ({published[0]})", f"{row[0]['gflops']:.2f} ({published[1]})",
                          f"{speed[0]} ({published[2]})", f"{speed[1]} ({published[3]})", published[4]])
        text += [f"#### From the vanilla network to the released one, batch {batch}, {size} x {size} pixels, {dtype}\n",
                 "In parentheses and in the last column: the paper's, on an A100 with batch 128.\n",
                 table(["rung", "change", "M parameters", "GFLOPs", "forward, images/s", "training, images/s", "top-1, %"], lines, 2)]
    return text


def compile_tables(run):
    text = []
    for (which, size), rows in grouped(select(run, "compile"), "pass", "size").items():
        xla = {(row["name"], row["platform"]): row["trace_cpu_s"] for row in rows if row["backend"] == "xla"}
        lines = []
        for row in rows:
            ratio = xla.get((row["name"], row["platform"]))
            lines.append([candidate(row), row["platform"], f"{row['trace_cpu_s']:.2f}", f"{row['trace_cpu_s'] / ratio:.2f}" if ratio else "",
                          f"{row['lower_cpu_s']:.2f}", row["kernels"], short(row["text_mb"])])
        text += [f"#### Trace and lowering, {PASSES.get(which, which)}, batch 1, {size} x {size} pixels\n",
                 f"CPU seconds of a fresh process on the CPU, medians of {rows[0]['repeats']}; kernels is the number of Pallas kernel bodies in the "
                 "lowered text, whose size is in MB.\n",
                 table(["model", "for", "trace, s", "of xla's", "lower, s", "kernels", "text, MB"], lines, 2)]
    if rows := select(run, "first_step"):
        phases = ("build", "trace", "lower", "compile", "step", "total")
        text += ["#### Time to the first training step\n",
                 "CPU seconds of a fresh process on the CPU after its imports, without a compilation cache; the last column is its wall time, which "
                 f"depends on the load. Medians of {rows[0]['repeats']}.\n",
                 table(["program", "batch", *phases, "wall, s"],
                        [[f"`{row['name']}`", row["batch"], *(f"{row[f'{phase}_cpu_s']:.1f}" for phase in phases), f"{row['total_s']:.1f}"]
                         for row in rows], 1)]
    return text
