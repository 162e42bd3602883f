"""The four-direction scan of a map in terms of the selective scan: what every backend without a kernel of its own for it runs.

Directions along the rows scan the map as it lies, those along the columns its transpose: four sequences are never made.
"""
import functools

import jax
import jax.numpy as jnp

from pallas_kernels import reference
from pallas_kernels.common import Arguments
from pallas_kernels.differentiation import differentiable

LAYOUTS = ((False, (0, 2)), (True, (1, 3)))    # whether along the columns, and the directions there: one forward, one in reverse


def merged(selective_scan, args, options):
    """Merged map of `scan.cross_selective_scan`, by `selective_scan(args, options)` of one backend; differentiable as that is."""
    total = 0
    for columns, directions in LAYOUTS:
        laid = _laid(args, columns)
        y = sum(selective_scan(_direction(laid, k), _one(options, k)) for k in directions)
        total = total + _raster(y, args.u, columns)
    return total.astype(options.out_dtype)


plain = functools.partial(merged, reference.selective_scan)


@functools.cache
def lean(scan_forward, scan_backward, options):
    """`scan(args) -> merged map` from the two passes of a backend's selective scan.

    Of the four directions only what each saves is kept; their step sizes, four maps as large as u, are projected again on the way back.
    """
    return differentiable(functools.partial(_forward, scan_forward), functools.partial(_backward, scan_backward), plain, options)


def _forward(scan_forward, args, options):
    saved = {}

    def scan(scan_args, one):
        y, saved[len(saved)] = scan_forward(scan_args, one)
        return y

    return merged(scan, args, options), saved


def _backward(scan_backward, args, saved, dy, options):
    args, dy = jax.lax.optimization_barrier((args, dy))    # or the compiler finds the same step sizes in the forward pass, and keeps them
    found, saved = [], iter(saved.values())
    for columns, directions in LAYOUTS:
        laid, lay_back = jax.vjp(functools.partial(_laid, columns=columns), args)
        gy = _sequence(dy.swapaxes(1, 2) if columns else dy)
        for k in directions:
            scan_args, pullback = jax.vjp(functools.partial(_direction, k=k), laid)
            one = _one(options, k)
            found += pullback(scan_backward(scan_args, next(saved), gy.astype(one.out_dtype), one))
        found = [*found[:-2], *lay_back(jax.tree.map(jnp.add, *found[-2:]))]
    return jax.tree.map(jnp.add, *found)


def _one(options, k):
    """Options of direction k's scan."""
    return options._replace(reverse=k > 1, out_dtype=jnp.promote_types(jnp.float32, options.out_dtype).name)


def _sequence(x):
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def _raster(y, u, columns):
    """A sequence of one layout as a map like u."""
    batch, height, width, channels = u.shape
    return y.reshape(batch, width, height, channels).swapaxes(1, 2) if columns else y.reshape(u.shape)


def _laid(args, columns):
    """The maps as a layout reads them."""
    across = lambda x: x.swapaxes(1, 2) if columns else x
    return args._replace(u=across(args.u), steps=across(args.steps), B=across(args.B), C=across(args.C))


def _direction(args, k):
    """Arguments of direction k's selective scan."""
    both = jnp.promote_types(args.steps.dtype, args.dt_weight.dtype)
    steps, weight = args.steps[..., k, :].astype(both), args.dt_weight[k].astype(both)
    of = lambda x: None if x is None else x[k]
    return Arguments(u=_sequence(args.u), delta=_sequence(steps) @ weight.T, A=args.A[k], B=_sequence(args.B[..., k:k + 1, :]),
                     C=_sequence(args.C[..., k:k + 1, :]), D=of(args.D), delta_bias=of(args.delta_bias))
