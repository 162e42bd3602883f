"""The bare recurrence h_t = a_t h_{t-1} + b_t on NVIDIA GPUs, which also carries the selective scan's states from chunk to chunk.

Mosaic GPU has no complex numbers: they are two real planes, a number being a tuple (real,) or (real, imaginary).
"""
import jax
import jax.numpy as jnp

from pallas_kernels.gpu.tiles import clock, from_rows, launch, march, narrow, plan, to_rows, widen

FEW = 16             # chunks that XLA joins itself; a kernel joins more, and cuts those into fewer (plan makes at most 15 of 17)


def linear_states(a, b, options):
    """h, not differentiable by itself."""
    split = lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)
    h = _scan(split(a), split(b), options, "states")
    return h[0] if len(h) == 1 else jax.lax.complex(*h)


def carried(decay, end, p, options):
    """State in which each chunk begins, from its total decay and its end when begun at zero; tuples of planes (rows, ..., channels)."""
    shape = end[0].shape
    decay, end = (tuple(x.reshape(p.batch, p.chunks, -1) for x in planes) for planes in (decay, end))
    if p.chunks > FEW:
        entries = _scan(decay, end, options, "entries")
    else:
        h, entries = tuple(jnp.zeros_like(x[:, 0]) for x in end), [None] * p.chunks
        for k in reversed(range(p.chunks)) if options.reverse else range(p.chunks):
            entries[k] = h
            h = _plus(_times([x[:, k] for x in decay], h), [x[:, k] for x in end])
        entries = [jnp.stack(plane, 1) for plane in zip(*entries, strict=True)]
    return tuple(x.reshape(shape) for x in entries)


def _times(a, b):
    return (a[0] * b[0],) if len(a) == 1 else (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])


def _plus(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _scan(a, b, options, kind):
    """Planes (b, L, channels) of the "states", or of the "entries" that each step begins with."""
    batch, length, channels = b[0].shape
    p = plan(batch, length, 1, channels, 1)
    a, b = (tuple(to_rows(widen(x, p), p) for x in planes) for planes in (a, b))
    entry = None
    if p.chunks > 1:
        decay, end = _chunks(p, a, b, None, options, "ends")
        entry = carried(decay, end, p, options)
    return tuple(narrow(from_rows(x, p), p) for x in _chunks(p, a, b, entry, options, kind))


def _chunks(p, a, b, entry, options, kind):
    """Every chunk from its entry: "states" or "entries" (rows, steps, channels), or (total decay, end) (rows, channels) for "ends"."""
    planes, time = len(a), clock(p, options.reverse)
    named = lambda prefix, xs: {f"{prefix}{i}": x for i, x in enumerate(xs)}

    def body(tile, refs):
        rows, columns = tile.rows, tile.columns
        of = lambda prefix: [getattr(refs, f"{prefix}{i}") for i in range(planes)]

        def put(prefix, x, *index):
            for ref, plane in zip(of(prefix), x, strict=True):
                tile.write(ref, rows, *index, columns, plane)

        def fetch(i):
            return [tuple(tile.raw(ref, rows, time(i), columns) for ref in of(prefix)) for prefix in "ab"]

        def step(i, held, carry):
            h, total = carry
            a, b = held
            new = _plus(_times(a, h), b)
            if kind == "ends":
                return new, _times(a, total)
            put("h", new if kind == "states" else h, time(i))
            return new, None

        zeros = (tile.zeros(),) * planes
        start = zeros if entry is None else tuple(tile.read(ref, rows, columns) for ref in of("entry"))
        h, total = march(p.steps, fetch, step, (start, (tile.zeros() + 1.0, *zeros[1:]) if kind == "ends" else None), p.ahead)
        if kind == "ends":
            put("h", h)
            put("total", total)

    inputs = named("a", a) | named("b", b) | named("entry", entry or ())
    shape = ((p.rows, p.channels) if kind == "ends" else (p.rows, p.steps, p.channels)), jnp.float32
    outputs = named("h", [shape] * planes) | (named("total", [shape] * planes) if kind == "ends" else {})
    out = launch(body, p, options.interpret, inputs, outputs)
    h = tuple(out[f"h{i}"] for i in range(planes))
    return (tuple(out[f"total{i}"] for i in range(planes)), h) if kind == "ends" else h
