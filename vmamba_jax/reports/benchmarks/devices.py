"""Tables of programs that were counted without a device, "tpu_static_cycles" and "gpu_static_code", and of a device check, "device_check"."""
from vmamba_jax.reports.benchmarks.records import table

CYCLES = """Cycles of the TPU compiler's schedules, counted in its output without a TPU; they are not timings and exclude waits for memory. A register
holds 8 x 128 numbers.
"""
CODE = """Machine code of the kernels (u and delta in bfloat16, y in float32), compiled without a GPU; the counts are not timings. `per number` is the
instructions of a thread for one number of the sequence and one pass over it; a scan in chunks first runs the kernel of chunk ends too.
"""
COMPARED = """The largest difference from the plain scan in float64 over the largest value, of the result and of every gradient; from `four scans` where
the times have them.
"""


def cycles(run):
    """Parts of the page for a file of kind "tpu_static_cycles"."""
    rows = [[row["kernel"], row["direction"], _shape(row["shape"]), row["T"], f"{row['cycles_per_register']:.4g}", f"{row['total']:,}"]
            for row in run["records"]]
    return ["#### Static cycles\n", CYCLES, table(["kernel", "direction", "shape", "T", "cycles per register", "total cycles"], rows, 3)]


def code(run):
    """Parts of the page for a file of kind "gpu_static_code"."""
    rows = [[row["kernel"], row["direction"], _shape(row["shape"]), row["state"], row["chunks"], row["programs"], row["registers"],
             row["spills"], f"{row['shared'] / 1024:.3g}" if "shared" in row else "", "" if row["per_number"] is None else row["per_number"]] for row in run["records"]]
    columns = ["kernel", "direction", "batch x length x channels", "N", "chunks", "programs", "registers", "spilled bytes", "shared KiB", "per number"]
    return ["#### Machine code\n", CODE, table(columns, rows, 3)]


def check(run):
    """Parts of the page for a file of kind "device_check": comparisons, times, and where another program is faster."""
    parity = [[row["name"], f"{row['error']:.1e}", "yes" if row["right"] else "NO", "yes" if row["same_twice"] else "NO"] for row in run["parity"]]
    share = lambda row: f"{100 * row['share_of_copy']:.0f} %" if "share_of_copy" in row else ""
    times = [[row["what"], row["by"], _size(row), row["dtype"], row["pass"], f"{row['ms']:.4g}", share(row),
              f"{row['images_per_s']:.4g}" if "images_per_s" in row else ""] for row in run["times"]]
    lost = [[row["what"], _size(row), row["dtype"], row["pass"], row["by"], f"{row['ours_over_theirs']:.2f}"] for row in run["losses"]]
    text = ["#### Compared\n", COMPARED, table(["program", "error", "right", "same bits twice"], parity, 1),
            "#### Times\n", table(["what", "by", "size", "dtype", "pass", "ms", "of copy", "images/s"], times, 5), "#### Where we lose\n",
            table(["what", "size", "dtype", "pass", "by", "our time / theirs"], lost, 5) if lost else "In no row.\n"]
    for found in run.get("kernels", ()):
        rows = [[row["kernel"], row["launches"], f"{row['ms']:.3f}", f"{100 * row['share']:.1f} %"] for row in found["kernels"]]
        text += [f"#### Kernels of {found['by']}, {found['pass']}\n", table(["kernel", "launches", "ms", "share"], rows, 1)]
    if found := run["training"]:
        text += ["#### Adversarial training\n", f"PGD-10, {found['data']}, eps {found['eps']:.3g}: {found['images_per_s']:.0f} images/s over "
                 f"{found['steps']} steps; {100 * found['clean']:.1f} % clean and {100 * found['pgd20']:.1f} % under PGD-20 on {found['test_images']} test images.\n"]
    return text


def _size(row):
    size = row["size"]
    text = _shape(size) if isinstance(size, list) else f"{size} px"
    return f"{text}, N = {row['state']}" if row.get("state", 1) > 1 else text


def _shape(sizes):
    return " x ".join(map(str, sizes))


TABLES = {"tpu_static_cycles": cycles, "gpu_static_code": code, "device_check": check}
