"""The corruptions of a benchmark file as Markdown: images per second beside the package's of the same run."""


def corruption_tables(run):
    """Tables of the records whose "what" is "corruption"; an empty list where there are none."""
    rows = [record for record in run["records"] if record["what"] == "corruption"]
    text = []
    for size, severity in dict.fromkeys((row["size"], row["severity"]) for row in rows):
        found = [row for row in rows if (row["size"], row["severity"]) == (size, severity)]
        ours = [row for row in found if row["backend"] == "ours"]
        theirs = {row["name"]: row for row in found if row["backend"] != "ours"}
        ratios = [row["ratio"] for row in ours if "ratio" in row]
        lines = [f"#### Corruptions, {size} x {size} pixels, severity {severity}\n",
                 f"Ours takes a batch over the JAX devices given; `imagecorruptions` takes image after image in one Python thread, as its users do. "
                 f"The ratio is of images per second: at least 10 for {sum(ratio >= 10 for ratio in ratios)} of {len(ratios)}.\n",
                 "| corruption | batch | devices | ms an image | images/s | imagecorruptions, images/s | ratio |",
                 "|---|---:|---:|---:|---:|---:|---:|"]
        for row in ours:
            other = f"{theirs[row['name']]['images_per_s']:.4g}" if row["name"] in theirs else ""
            ratio = f"{row['ratio']:.1f}" if "ratio" in row else ""
            lines.append(f"| `{row['name']}` | {row['batch']} | {row['devices']} | {1000 / row['images_per_s']:.3g} | {row['images_per_s']:.4g} "
                         f"| {other} | {ratio} |")
        text.append("\n".join(lines) + "\n")
    return text
