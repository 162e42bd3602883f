"""Programs that time the geometries a map's scan may be cut into on a GPU, beside four scans: what `gpu.plan.map_plan` chooses from."""
import functools

from pallas_kernels import cross, reference
from pallas_kernels.arguments import CrossArguments, Options
from pallas_kernels.autodiff import differentiable
from pallas_kernels.gpu import backward, forward
from pallas_kernels.gpu import cross as map_scan
from pallas_kernels.gpu.plan import AHEAD, DIRECTIONS, map_geometry, sum_bytes, widths

BATCHES = (128, 32)
SHARED_BYTES = 200_000     # of a multiprocessor, for the sum of the directions


def plans(batch, side, channels):
    """Every (name, `Plan`) of a map: channels per lane, loads in flight, and all directions in one program where their sum fits."""
    for across in sorted(widths(channels)):
        for ahead in (AHEAD, 2 * AHEAD):
            for turns in (1, DIRECTIONS):
                if turns > 1 and sum_bytes(side * side, across) > SHARED_BYTES:
                    continue
                name = f"{across} a lane, {ahead} ahead" + (", all directions in a program" if turns > 1 else "")
                yield name, map_geometry(batch, side, side, channels, across, ahead, turns)


def scans(batch, side, channels):
    """(name, differentiable scan of a tree of arguments) of four scans and of every plan."""
    options = Options()
    yield "four scans", cross.lean(forward.forward, backward.backward, reference.cross_selective_scan, options)
    for name, p in plans(batch, side, channels):
        passes = functools.partial(map_scan.forward, p=p), functools.partial(map_scan.backward, p=p._replace(turns=1))
        yield name, differentiable(*passes, reference.cross_selective_scan, options)


def of_tree(scan):
    """The scan as a function of a tree by name."""
    return lambda x: scan(CrossArguments(**x))
