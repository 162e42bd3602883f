"""First-order recurrence h_t = a_t h_{t-1} + b_t on NVIDIA GPUs; it also carries the selective scan's states from chunk to chunk.

Numbers are tuples of real planes, see `planes`.
"""
import functools

import jax
import jax.numpy as jnp

from pallas_kernels import planes
from pallas_kernels.gpu.plan import plan
from pallas_kernels.gpu.tiles import clock, direction, from_rows, launch, narrow, pipelined_loop, to_rows, widen

FEW = 16             # most chunks that XLA joins; a kernel joins more, and cuts those into fewer (plan makes at most 15 of 17)


def linear_states(a, b, options):
    """Every state h_t, (b, L, channels); not differentiable by itself."""
    return planes.join(_scan(planes.split(a), planes.split(b), options, "states"))


def carried(decay, end, p, options):
    """State in which each chunk begins.

    Args:
        decay, end: each chunk's total decay and its end when begun at zero; tuples of planes (rows, ..., channels).
        p: the `Plan` that cut the chunks.
        options: the scan's `Options`.

    Returns:
        tuple of planes in the shape of `end`.
    """
    shape = end[0].shape
    decay, end = (tuple(x.reshape(p.batch, p.chunks, -1) for x in xs) for xs in (decay, end))
    if p.chunks > FEW:
        entries = _scan(decay, end, options, "entries")
    else:
        h, entries = tuple(jnp.zeros_like(x[:, 0]) for x in end), [None] * p.chunks
        for k in reversed(range(p.chunks)) if options.reverse else range(p.chunks):
            entries[k] = h
            h = planes.plus(planes.times([x[:, k] for x in decay], h), [x[:, k] for x in end])
        entries = [jnp.stack(plane, 1) for plane in zip(*entries, strict=True)]
    return tuple(x.reshape(shape) for x in entries)


def _scan(a, b, options, kind):
    """Planes (b, L, channels) of the "states", or of the "entries": the state before each step."""
    batch, length, channels = b[0].shape
    p = plan(batch, length, 1, channels, 1)
    a, b = (tuple(to_rows(widen(x, p), p) for x in xs) for xs in (a, b))
    run = functools.partial(_chunks, direction(options.reverse), a, b, p=p, interpret=options.interpret)
    entry = None
    if p.chunks > 1:
        decay, end = run(None, kind="ends")
        entry = carried(decay, end, p, options)
    return tuple(narrow(from_rows(x, p), p) for x in run(entry, kind=kind))


@functools.partial(jax.jit, static_argnames=("p", "interpret", "kind"))
def _chunks(direction, a, b, entry, *, p, interpret, kind):
    """Every chunk from its entry: "states" or "entries" (rows, steps, channels), or (total decay, end) (rows, channels) for "ends"."""
    count = len(a)
    named = lambda prefix, xs: {f"{prefix}{i}": x for i, x in enumerate(xs)}

    def body(tile, refs):
        rows, columns, time = tile.rows, tile.columns, clock(refs.direction, p, tile.group)
        of = lambda prefix: [getattr(refs, f"{prefix}{i}") for i in range(count)]

        def store(prefix, x, *index):
            for ref, plane in zip(of(prefix), x, strict=True):
                tile.store(ref, rows, *index, columns, plane)

        def fetch(i):
            t = time(i)
            return [tuple(tile.load(ref, rows, t, columns) for ref in of(prefix)) for prefix in "ab"]

        def step(i, operands, carry):
            h, total = carry
            a, b = operands
            new = planes.plus(planes.times(a, h), b)
            if kind == "ends":
                return new, planes.times(a, total)
            store("h", new if kind == "states" else h, time(i))
            return new, None

        zeros = (tile.zeros(),) * count
        start = zeros if entry is None else tuple(tile.load_float(ref, rows, columns) for ref in of("entry"))
        h, total = pipelined_loop(p.steps, fetch, step, (start, (tile.zeros() + 1.0, *zeros[1:]) if kind == "ends" else None), p.ahead)
        if kind == "ends":
            store("h", h)
            store("total", total)

    inputs = {"direction": direction} | named("a", a) | named("b", b) | named("entry", entry or ())
    shape = ((p.rows, p.channels) if kind == "ends" else (p.rows, p.steps, p.channels)), jnp.float32
    outputs = named("h", [shape] * count) | (named("total", [shape] * count) if kind == "ends" else {})
    out = launch(body, p, interpret, inputs, outputs)
    h = tuple(out[f"h{i}"] for i in range(count))
    return (tuple(out[f"total{i}"] for i in range(count)), h) if kind == "ends" else h
