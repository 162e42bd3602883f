"""The attacks of a benchmark file as Markdown: how fast, how long to compile, and whether the reference agrees."""


def attack_tables(run):
    """Tables of the records whose "what" is "attack"; an empty list where there are none."""
    rows = [record for record in run["records"] if record["what"] == "attack"]
    if not rows:
        return []
    lines = ["#### Attacks\n",
             "A line is one run over all images; ours is the second of two, and `compiling` what the first took more. `ours / torch` "
             "compares images per second with torch's line of the same attack, weights and images; in `torch driving ours` torch's program attacks our "
             "model through a bridge.\n",
             "| model | attack | images | by | seconds | images/s | ours / torch | compiling | clean | robust | images judged alike |",
             "|---|---|---:|---|---:|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        theirs = next((other for other in rows if other["backend"] == "torch" and _same(row, other)), None)
        ratio = f"{row['images_per_s'] / theirs['images_per_s']:.2f}" if theirs and row["backend"] == "ours" else ""
        compiling = f"{row['compile_s']:.1f} s" if "compile_s" in row else ""
        alike = f"{row['agreeing']} of {row['images']}" if "agreeing" in row else ""
        lines.append(f"| `{row['name']}`, {row['size']} px | {row['attack']}, eps {255 * row['eps']:.3g}/255 | {row['images']} | {row['backend']} "
                     f"| {row['seconds']:.4g} | {row['images_per_s']:.4g} | {ratio} | {compiling} | {100 * row['accuracy']:.1f} % "
                     f"| {100 * row['robust_accuracy']:.1f} % | {alike} |")
    lines.append("")
    for row in rows:
        if "stages" in row:
            lines += [f"`{row['name']}`, {row['attack']}: " + ", ".join(
                f"{stage['name']} broke {stage['broken']} of {stage['attacked']} in {stage['seconds']:.3g} s" for stage in row["stages"]) + ".\n"]
    return ["\n".join(lines) + "\n"]


def _same(a, b):
    return all(a[field] == b[field] for field in ("name", "attack", "images", "size", "eps"))
