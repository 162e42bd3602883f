"""The scan of a map along four directions as four selective scans, for backends without a kernel of their own for it.

Row directions scan the map in place, column directions scan its transpose, so the four sequences are never materialized.
"""
import functools

import jax
import jax.numpy as jnp

from pallas_kernels.arguments import Arguments
from pallas_kernels.autodiff import differentiable

DIRECTIONS = range(4)    # odd directions run along the columns, the last two in reverse


def merged(selective_scan, args, options):
    """Merged map of `scan.cross_selective_scan`, by `selective_scan(args, options)` of one backend; as differentiable as that."""
    return _merge(args, options, [selective_scan(_direction(args, k), _one(options, k)) for k in DIRECTIONS])


@functools.cache
def lean(scan_forward, scan_backward, plain, options):
    """Differentiable `scan(args) -> merged map` from the two passes of a backend's selective scan.

    The backward pass keeps only what each direction's scan saves. It projects the step sizes, four maps as large as u, again.

    Args:
        scan_forward, scan_backward, plain, options: as for `autodiff.differentiable`; plain is a cross scan.
    """
    # jit: directions of equal shapes share one trace
    scan_forward, scan_backward = (jax.jit(f, static_argnames="options") for f in (scan_forward, scan_backward))
    return differentiable(functools.partial(_forward, scan_forward), functools.partial(_backward, scan_backward), plain, options)


def _forward(scan_forward, args, options):
    found = [scan_forward(_direction(args, k), options=_one(options, k)) for k in DIRECTIONS]
    return _merge(args, options, [y for y, _ in found]), tuple(saved for _, saved in found)


def _backward(scan_backward, args, saved, dy, options):
    args, dy = jax.lax.optimization_barrier((args, dy))    # else the compiler reuses the step sizes of the forward pass and keeps them
    total = None
    for k, residuals in zip(DIRECTIONS, saved, strict=True):
        scan_args, pullback = jax.vjp(functools.partial(_direction, k=k), args)
        one = _one(options, k)
        found, = pullback(scan_backward(scan_args, residuals, _sequence(dy, k).astype(one.out_dtype), options=one))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    return total


def _one(options, k):
    """Options of direction k's scan."""
    return options._replace(reverse=k > 1, out_dtype=jnp.promote_types(jnp.float32, options.out_dtype).name)


def _sequence(x, k):
    """A map in the order of direction k: (batch, H, W, ...) -> (batch, L, ...)."""
    x = x.swapaxes(1, 2) if k % 2 else x
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def product(steps, weight):
    """steps @ weight, in full precision for float32: a GPU's and a TPU's default rounds the factors to 10 or 7 bits."""
    return jnp.matmul(steps, weight, precision=jax.lax.Precision.HIGHEST if steps.dtype == jnp.float32 else None)


def _direction(args, k):
    """Arguments of direction k's selective scan; slices the maps before the transpose, which then copies less."""
    both = jnp.promote_types(args.steps.dtype, args.dt_weight.dtype)
    steps, weight = args.steps[..., k, :].astype(both), args.dt_weight[k].astype(both)
    of = lambda x: None if x is None else x[k]
    return Arguments(u=_sequence(args.u, k), delta=product(_sequence(steps, k), weight.T), A=args.A[k], B=_sequence(args.B[..., k:k + 1, :], k),
                     C=_sequence(args.C[..., k:k + 1, :], k), D=of(args.D), delta_bias=of(args.delta_bias))


def _merge(args, options, outputs):
    """Sum of the directions' outputs on the map."""
    batch, height, width, channels = args.u.shape
    rows, columns = outputs[0] + outputs[2], outputs[1] + outputs[3]
    columns = columns.reshape(batch, width, height, channels).swapaxes(1, 2)
    return (rows.reshape(args.u.shape) + columns).astype(options.out_dtype)
