"""Where a program's time goes: its most expensive operations, from profiled calls of XLA or of torch, and the share of the model's passes."""
import collections
import gzip
import json
import pathlib
import re
import tempfile
import time

import jax

from experiments.benchmarks.timing import rounded

# Parts of an operation's path that are no module: transformations, bodies of loops and branches, and methods ("ResNet._stem").
WRAPPER = re.compile(r"^(shard_map|while|body|cond|closed_call|eval_jaxpr|checkpoint|remat|rematted_computation|branch_\d+_fun|.*[(.].*)$")
CALLS, BUDGET = 3, 2.0  # profiled, unless the first ones take so many seconds; other load on the machine makes an operation slower in some of them
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name=\"([^\"]*)\"", re.MULTILINE)


def times(case):
    """{operation: seconds in one call}, each without the operations that it contains, and each in its fastest call.

    An operation of XLA is named by its path in the program, one of torch by its name in torch ("aten::addmm"). A path ends in the primitive; a
    fusion has the path of its last operation.

    Args:
        case: a `Case` whose `program` is the compiled program, or of torch.
    """
    case.wait(case.run())
    measure = _torch_times if case.record["backend"] == "torch" else _xla_times
    calls, began = [], time.perf_counter()
    while not calls or (len(calls) < CALLS and time.perf_counter() - began < BUDGET):
        calls.append(measure(case))
    return {name: min(call.get(name, seconds) for call in calls) for name, seconds in calls[0].items()}


def most_expensive(found, n):
    """[{"operation", "share"}]: the `n` operations of most time, summed over layers of one kind, and their shares of the time of all.

    Args:
        found: {operation: seconds}, see `times`.
        n: how many.
    """
    total, kinds = sum(found.values()), collections.Counter()
    for path, seconds in found.items():
        kinds[kind(path)] += seconds
    return [{"operation": name, "share": rounded(seconds / total)} for name, seconds in kinds.most_common(n)]


def kind(path):
    """The kind of an operation: the last two modules of its path without their numbers, and the primitive; "backward" if it is of a transpose."""
    if "/" not in path:
        return re.sub(r"[._]\d+$", "", path)
    *modules, primitive = [part for part in path.split("/") if not WRAPPER.match(part)] or [path.rsplit("/", 1)[-1]]
    names = [re.sub(r"(_?\d+)+$", "", module) for module in modules[-2:]]
    return "/".join([*names, primitive]) + (", backward" if "transpose(" in path else "")


def share_outside(found, module):
    """The share of the time in operations that are not inside `module`, the name of a model's class, in [0, 1]."""
    inside = sum(seconds for path, seconds in found.items() if module in re.split(r"[/()]", path))
    return 1 - inside / sum(found.values())


def name_in(case, n):
    """Add to the record of a case its `n` most expensive operations and, if the case has a `module`, the share of the time outside of it."""
    found = times(case)
    case.record["operations"] = most_expensive(found, n)
    if case.module:
        case.record["outside_model"] = rounded(share_outside(found, case.module))


def _xla_times(case):
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            case.wait(case.run())
        trace = json.loads(gzip.decompress(next(pathlib.Path(folder).rglob("*.trace.json.gz")).read_bytes()))   # jax 0.12's ProfileData aborts on stats
    paths, found, threads = dict(INSTRUCTION.findall(case.program.as_text())), collections.Counter(), collections.defaultdict(list)
    for event in trace["traceEvents"]:
        if operation := event.get("args", {}).get("hlo_op"):
            threads[event["pid"], event["tid"]].append((1e3 * event["ts"], 1e3 * (event["ts"] + event["dur"]), operation))      # nanoseconds
    for events in threads.values():
        for operation, seconds in _alone(events):
            found[paths.get(operation, re.sub(r"\.\d+$", "", operation))] += seconds
    return dict(found)


def _alone(events):
    """[(operation, seconds)] of events (start, end, operation) of one thread; the time of an event excludes the events inside it."""
    found, around = [], []
    for start, end, operation in sorted(events, key=lambda event: (event[0], -event[1])):
        while around and around[-1][0] <= start:
            around.pop()
        if around:
            found[around[-1][1]][1] -= (end - start) / 1e9
        around.append((end, len(found)))
        found.append([operation, (end - start) / 1e9])
    return found


def _torch_times(case):
    from torch.profiler import profile
    with profile() as recorded:
        case.wait(case.run())
    return {event.key: 1e-6 * (event.self_cpu_time_total + getattr(event, "self_device_time_total", 0)) for event in recorded.key_averages()
            if event.key.startswith("aten::")}
