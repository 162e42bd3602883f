"""Tables of a benchmark's attacks and corruptions."""
from vmamba_jax.reports.benchmarks.records import select
from vmamba_jax.reports.tables import percent

ATTACKS_NOTE = (
    "Each row is one run over all images; `ours` is the second of two runs, and `compile` is what the first took more. `ours / torch` is the ratio of "
    "images per second to torch's row of the same attack, weights and images; `torch driving ours` is torch's program attacking our model through a "
    "bridge.\n")
CORRUPTIONS_NOTE = (
    "`ours` is a batch over the given JAX devices; `imagecorruptions` is one image after the other in one Python thread, its usual use. `ratio` is "
    "the ratio of images per second: at least 10 for {fast} of {all}.\n")


def attack_tables(run):
    """Markdown tables of a benchmark's attacks: time, compile time, and agreement with the reference; [] if it has none."""
    rows = select(run, "attack")
    if not rows:
        return []
    lines = ["#### Attacks\n", ATTACKS_NOTE,
             "| model | attack | images | by | seconds | images/s | ours / torch | compile | clean | robust | same result |",
             "|---|---|---:|---|---:|---:|---:|---:|---:|---:|---:|"]
    same = lambda a, b: all(a[field] == b[field] for field in ("name", "attack", "images", "size", "eps"))
    for row in rows:
        theirs = next((other for other in rows if other["backend"] == "torch" and same(row, other)), None)
        ratio = f"{row['images_per_s'] / theirs['images_per_s']:.2f}" if theirs and row["backend"] == "ours" else ""
        compiling = f"{row['compile_s']:.1f} s" if "compile_s" in row else ""
        alike = f"{row['agreeing']} of {row['images']}" if "agreeing" in row else ""
        lines.append(f"| `{row['name']}`, {row['size']} px | {row['attack']}, eps {255 * row['eps']:.3g}/255 | {row['images']} | {row['backend']} "
                     f"| {row['seconds']:.4g} | {row['images_per_s']:.4g} | {ratio} | {compiling} | {percent(row['accuracy'])} "
                     f"| {percent(row['robust_accuracy'])} | {alike} |")
    lines.append("")
    for row in rows:
        if "stages" in row:
            lines += [f"`{row['name']}`, {row['attack']}: " + ", ".join(
                f"{stage['name']} broke {stage['broken']} of {stage['attacked']} in {stage['seconds']:.3g} s" for stage in row["stages"]) + ".\n"]
    return ["\n".join(lines) + "\n"]


def corruption_tables(run):
    """Markdown tables of a benchmark's corruptions, one for each image size and severity, beside the package imagecorruptions; [] if it has none."""
    rows = select(run, "corruption")
    tables = []
    for size, severity in dict.fromkeys((row["size"], row["severity"]) for row in rows):
        found = [row for row in rows if (row["size"], row["severity"]) == (size, severity)]
        ours = [row for row in found if row["backend"] == "ours"]
        theirs = {row["name"]: row for row in found if row["backend"] != "ours"}
        ratios = [row["ratio"] for row in ours if "ratio" in row]
        lines = [f"#### Corruptions, {size} x {size} pixels, severity {severity}\n",
                 CORRUPTIONS_NOTE.format(fast=sum(ratio >= 10 for ratio in ratios), all=len(ratios)),
                 "| corruption | batch | devices | ms per image | images/s | imagecorruptions, images/s | ratio |",
                 "|---|---:|---:|---:|---:|---:|---:|"]
        for row in ours:
            other = f"{theirs[row['name']]['images_per_s']:.4g}" if row["name"] in theirs else ""
            ratio = f"{row['ratio']:.1f}" if "ratio" in row else ""
            lines.append(f"| `{row['name']}` | {row['batch']} | {row['devices']} | {1000 / row['images_per_s']:.3g} | {row['images_per_s']:.4g} "
                         f"| {other} | {ratio} |")
        tables.append("\n".join(lines) + "\n")
    return tables
