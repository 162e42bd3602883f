"""Tables of a benchmark's scans."""
from vmamba_jax.reports.benchmarks.records import PASSES, backend, grouped, mib, select, short, table, times

SCANS = {"selective_scan": "Selective scan", "cross_selective_scan": "Cross scan: four directions, merged"}
MOVED = {"selective_scan": "3 arrays forward, 8 with the gradient", "cross_selective_scan": "2 arrays forward, 5 with the gradient"}


def scan_tables(run):
    text = []
    for (name, state, batch, dtype), rows in grouped(select(run, "scan"), "name", "state", "batch", "dtype").items():
        text += [f"#### {SCANS[name]}, N = {state}, batch {batch}, {dtype}\n",
                 f"Bandwidth is the minimum memory traffic ({MOVED[name]}, and the inputs without a channel axis) over time; `of copy` is its ratio to "
                 f"the bandwidth of `x + 1` in place, timed in the same rounds, {_copy(run)}. A scan that fits in a cache may exceed it.{_call(run)}\n",
                 table(["length x channels", "pass", "backend", "ms", "quartiles", "fastest", "GB/s", "of copy", "temp MiB"],
                        [[f"{row['length']} x {row['channels']}", PASSES[row["pass"]], backend(row), *times(row, 1e3),
                          short(row["bytes"] / row["seconds"]["median"] / 1e9),
                          f"{100 * row['share_of_copy']:.0f} %" if "share_of_copy" in row else "",
                          mib(row)] for row in rows], 3)]
    return text


def _copy(run):
    rates = [row["bytes"] / row["seconds"]["median"] / 1e9 for row in select(run, "copy")]
    return f"{short(min(rates))} to {short(max(rates))} GB/s"


def _call(run):
    found = [1e6 * row["seconds"]["median"] for row in select(run, "call")]
    return f" Every time includes the {short(found[0])} microseconds of an empty call." if found else ""
