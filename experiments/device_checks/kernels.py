"""The kernels in which a program spends its time, by JAX's profiler."""
import collections
import pathlib
import tempfile

import jax

CALLS = 3


def costliest(run, count=12):
    """The kernels of a call that take most time: [{"kernel", "launches", "ms", "share"}], the rest as one more row.

    Args:
        run: called without arguments; returns arrays.
        count: number of kernels by name; a name's launches are summed.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                out = run()
            jax.block_until_ready(out)
        path, = pathlib.Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
    took, launches = collections.Counter(), collections.Counter()
    for plane in profile.planes:
        if plane.name.startswith("/device:"):
            for line in plane.lines:
                if line.name.startswith("Stream"):
                    for event in line.events:
                        took[event.name] += event.duration_ns
                        launches[event.name] += 1
    total = sum(took.values())
    row = lambda name, ns, times: {"kernel": name[:80], "launches": times // CALLS, "ms": ns / CALLS / 1e6, "share": ns / total}
    rows = [row(name, ns, launches[name]) for name, ns in took.most_common(count)]
    others = took.keys() - {name for name, _ in took.most_common(count)}
    return rows + ([row("others", sum(took[x] for x in others), sum(launches[x] for x in others))] if others else [])
