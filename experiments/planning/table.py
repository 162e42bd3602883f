"""Committed plans as a Markdown table."""
import json
import pathlib

GIB = 2 ** 30
HEAD = ("| model | slice | chip memory, batch | largest batch compiled that fits | with `remat` | step, ms | by the compiler's cycles, ms | images/s | "
        "hours, chip-hours | gradients | planned in |\n|---|---|---|---|---|---|---|---|---|---|---|")


def read(folder):
    """The plans in a folder's .json files, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(pathlib.Path(folder).glob("*.json"))]


def table(plans):
    """The table of plans, "" without any; times are those of the asked batch, or of the largest that fits, without `remat` where that fits."""
    return "\n".join([HEAD, *map(_row, plans)]) if plans else ""


def _row(plan):
    variants = plan["variants"]
    shown = next((record for variant in variants.values() if (record := variant["asked"] or (variant["largest"] or {}).get("record"))), None)
    parts = f"; {' and '.join(map(str, shown['blocks_compiled']))} of {shown['blocks']} blocks compiled" if shown and "blocks" in shown else ""
    first = [f"{plan['model']}, {plan['dtype']}{parts}", plan["topology"]]
    if shown is None:
        return "| " + " | ".join([*first, f"{plan['batch']}: does not fit", *map(_largest, _both(variants)), *["-"] * 5, f"{plan['seconds']:.0f} s"]) + " |"
    seconds, gradients = shown["seconds"], max(shown["collectives"], key=lambda row: row["bytes"], default=None)
    compiler = f"{1e3 * seconds['compiler']:.0f}" if "compiler" in seconds else "-"
    moved = f"{gradients['bytes'] / 1e6:.0f} MB, {gradients['kind']} {'inside' if gradients['inside_loop'] else 'outside'} loops" if gradients else "none"
    return "| " + " | ".join([
        *first, f"{shown['memory']['total'] / GIB:.1f} GiB, {shown['batch']}", *map(_largest, _both(variants)), f"{1e3 * seconds['step']:.0f}", compiler,
        f"{shown['images_per_second']:,.0f}", f"{shown['hours']:.1f}, {shown['chip_hours']:,.0f}", moved, f"{plan['seconds']:.0f} s"]) + " |"


def _both(variants):
    return variants.get("plain"), variants.get("remat")


def _largest(variant):
    if variant is None:
        return "-"
    line = f"; by a line {variant['by_line']:.0f} a chip" if variant["by_line"] and not variant["smallest_too_large"] else ""
    return (f"{variant['largest']['batch']} ({variant['largest']['rows']} a chip)" if variant["largest"] else "none") + line
