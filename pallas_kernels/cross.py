"""The four-direction scan of a map in terms of the selective scan: what every backend without a kernel of its own for it runs."""
import functools

import jax.numpy as jnp

from pallas_kernels.common import Arguments

ROWS, COLUMNS = (0, 2), (1, 3)    # directions along the rows and along the columns; the second of each runs in reverse


def merged(selective_scan, args, options):
    """Merged map of `scan.cross_selective_scan`, by `selective_scan(args, options)` of one backend.

    Directions along the rows scan the map as it lies, those along the columns its transpose: four sequences are never made.
    """
    rows = _both_ways(selective_scan, args, options, ROWS)
    columns = _both_ways(selective_scan, _transposed(args), options, COLUMNS)
    return (rows + columns.swapaxes(1, 2)).astype(options.out_dtype)


def _transposed(args):
    across = lambda x: x.swapaxes(1, 2)
    return args._replace(u=across(args.u), steps=across(args.steps), B=across(args.B), C=across(args.C))


def _both_ways(selective_scan, args, options, directions):
    batch, height, width, channels = args.u.shape
    sequence = lambda x: x.reshape(batch, height * width, *x.shape[3:])
    wide = jnp.promote_types(jnp.float32, options.out_dtype).name
    total = 0
    for k, reverse in zip(directions, (False, True), strict=True):
        both = jnp.promote_types(args.steps.dtype, args.dt_weight.dtype)
        steps, weight = args.steps[..., k, :].astype(both), args.dt_weight[k].astype(both)
        of = functools.partial(lambda k, x: None if x is None else x[k], k)
        scan = Arguments(u=sequence(args.u), delta=sequence(steps) @ weight.T, A=args.A[k], B=sequence(args.B[..., k:k + 1, :]),
                         C=sequence(args.C[..., k:k + 1, :]), D=of(args.D), delta_bias=of(args.delta_bias))
        total = total + selective_scan(scan, options._replace(reverse=reverse, out_dtype=wide))
    return total.reshape(batch, height, width, channels)
