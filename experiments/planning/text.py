"""A plan as text."""

GIB = 2 ** 30


def text(plan):
    """The plan's lines for a terminal."""
    image = "x".join(map(str, plan["image"]))
    lines = [f"{plan['model']} ({plan['dtype']}, {plan['parameters']:,} parameters), {plan['objective']}, {image}, on {plan['topology']}: {plan['chips']} x "
             f"{plan['chip']['label']}, {plan['compiled']}",
             *(f"note: {note}" for note in plan["notes"])]
    for name, variant in plan["variants"].items():
        lines += ["", f"{name}:", *_variant(variant, plan)]
    return "\n".join([*lines, "", f"planned in {plan['seconds']:.0f} s"])


def _variant(variant, plan):
    record, largest = variant["asked"], variant["largest"]
    needed = "unknown" if variant["needs_bytes"] is None else f"{variant['needs_bytes'] / GIB:.2f} GiB"
    if not variant["fits"]:
        yield f"  batch {plan['batch']}: does not fit, needs {needed} of {plan['chip']['memory_bytes'] / GIB:.2f} GiB per chip"
    if largest is None:
        yield f"  largest batch: none of the compiled ones fits ({', '.join(str(point['rows']) for point in variant['points'])} images per chip)"
    else:
        failing = variant["smallest_too_large"]
        beyond = f"{failing['rows']} per chip do not fit" if failing else "none larger was compiled" + (
            f", by the line about {variant['by_line']:.0f} per chip" if variant["by_line"] else "")
        yield f"  largest batch compiled that fits: {largest['batch']} ({largest['rows']} per chip, {largest['bytes'] / GIB:.2f} GiB); {beyond}"
    shown = [record] if record else []
    if largest and (record is None or largest["rows"] != record["rows"]):
        shown.append(largest["record"])
    for each in shown:
        yield from _record(each, plan)


def _record(record, plan):
    memory, seconds = record["memory"], record["seconds"]
    yield f"  batch {record['batch']} ({record['rows']} per chip), {record['steps']:,} steps:"
    if "blocks" in record:
        few, more = record["blocks_compiled"]
        yield f"    extrapolated       from compiled programs of {few} and {more} blocks to {record['blocks']}"
    kinds = ", ".join(f"{kind} {memory[kind] / GIB:.2f}" for kind in ("arguments", "outputs", "temporaries", "code"))
    yield f"    memory per chip    {memory['total'] / GIB:.2f} of {memory['chip'] / GIB:.2f} GiB ({kinds} GiB; outputs in the arguments' place {memory['aliased'] / GIB:.2f})"
    yield (f"    per image          {record['flops_per_image'] / 1e9:.1f} GFLOP of products, {record['vector_operations_per_image'] / 1e9:.1f} G other operations, "
           f"{record['bytes_per_image'] / 1e9:.2f} GB of memory traffic")
    for row in record["collectives"]:
        where = f"inside loop {row['loop']}, {row['times_per_step']} times" if row["inside_loop"] else "outside all loops"
        yield f"    {row['kind']:18} {row['bytes'] / 1e6:,.3f} MB {row['dtype']} in {row['count']:.0f}, {where}"
    parts = ", ".join(f"{name} {1e3 * seconds[name]:.1f}" for name in ("compute", "memory", "kernels", "network"))
    compiler = f"; by the compiler's cycles {1e3 * seconds['compiler']:.1f} ms" if "compiler" in seconds else ""
    yield f"    step               {1e3 * seconds['step']:.1f} ms at the roofline ({parts} ms){compiler}"
    if "kernels_not_counted" in record:
        yield f"    kernels without a count of cycles: {', '.join(record['kernels_not_counted'])}"
    yield (f"    run                {record['images_per_second']:,.0f} images/s, {record['hours']:.2f} hours for {plan['epochs']} epochs, "
           f"{record['chip_hours']:,.1f} chip-hours; validation, input and stops not counted")
    yield f"    compiled in        {', '.join(f'{name} {value:.0f} s' for name, value in record['compile'].items())}"
