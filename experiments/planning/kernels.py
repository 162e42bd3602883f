"""Seconds of the Pallas kernels of a program for TPU, by the cycles that `experiments.tpu_cycles` counted in their compiled schedules."""
import json
import math
import pathlib
import re

TABLES = pathlib.Path(__file__).parents[2] / "docs" / "benchmarks"
COUNTED = {"v6e": "tpu_v6e.json"}  # the others take v5e's cycles: their vector units have the same registers
NAMES = {"cross_scan": "cross_selective_scan", "selective_scan": "selective_scan", "linear_scan": "linear_scan"}  # in a program: in the table
TARGET = "tpu_custom_call"
LANES, SUBLANES = 128, 8


def seconds(kind, chip):
    """A function `counts.Work` -> seconds of one execution; 0 for anything but a kernel of the table.

    A kernel takes the cycles per 8 x 128 register of the table's most similar case (direction, dtype, number of positions) for each register of its
    main array, on all cores of a chip.

    Args:
        kind: key of `chips.CHIPS`.
        chip: its figures.
    """
    if chip.platform != "tpu":
        return lambda work: 0.0
    rows = json.loads((TABLES / COUNTED.get(kind, "tpu_v5e.json")).read_text())["records"]

    def of(work):
        found = recognized(work)
        if found is None:
            return 0.0
        name, direction, shape, dtype = found
        cycles = per_register(rows, name, direction, math.prod(shape[1:-1]), dtype)
        registers = math.prod(shape[:-1]) / SUBLANES * -(-shape[-1] // LANES)
        return cycles * registers / chip.clock / chip.cores

    return of


def recognized(work):
    """(name in the table, direction, shape of the main array, dtype) of a kernel; None for anything else."""
    if work.target != TARGET:
        return None
    found = re.search(r"(cross_scan|selective_scan|linear_scan)(?:_(forward|backward))?", work.source + " " + work.name)
    streams = [shape for shape in work.shapes if len(shape.dims) >= 3]
    if found is None or not streams:
        return None
    main = streams[0]  # every kernel's first operand is its main array
    return NAMES[found[1]], found[2] or "forward", main.dims, {"bf16": "bfloat16", "f32": "float32"}.get(main.dtype, main.dtype)


def per_register(rows, name, direction, positions, dtype):
    """Cycles per register of the table's row that is nearest in the number of positions, of the same dtype if there is one."""
    kernel = [row for row in rows if row["kernel"].split()[0] == name and row["direction"] == direction and "N=16" not in row["kernel"]]
    same = [row for row in kernel if row["kernel"].endswith(dtype)] or kernel
    return min(same, key=lambda row: abs(math.log(math.prod(row["shape"][1:-1]) / positions)))["cycles_per_register"]


def unknown(works):
    """Names of the Pallas kernels of a program that the table lacks."""
    return sorted({work.source or work.name for work in works if work.target == TARGET and recognized(work) is None})
