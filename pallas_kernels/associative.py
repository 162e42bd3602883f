"""The scans by `lax.associative_scan` and autodiff, as one would write them without a kernel: every state is in memory.

The baseline of the benchmark. Any float dtype, differentiable any number of times and in forward mode.
"""
import jax
import jax.numpy as jnp

from pallas_kernels import cross
from pallas_kernels.arguments import grouped, step_size, ungrouped, widened


def selective_scan(args, options):
    """y of `scan.selective_scan`."""
    args = widened(args)
    groups = args.B.shape[2]
    dt = step_size(args.delta, args.delta_bias, options.delta_softplus)
    A, B, C = grouped(args.A.T, groups), _states_first(args.B), _states_first(args.C)
    decay = jnp.exp(grouped(dt, groups)[:, :, None] * A)               # (b, L, N, G, D/G)
    h = _recurrence(decay, grouped(dt * args.u, groups)[:, :, None] * B, options.reverse)
    y = ungrouped((h * C).sum(2))
    y = y if args.D is None else y + args.D * args.u
    return y.astype(options.out_dtype)


def cross_selective_scan(args, options):
    """Merged map of `scan.cross_selective_scan`."""
    return cross.merged(selective_scan, args, options)


def linear_scan(a, b, options):
    """h_t = a_t h_{t-1} + b_t along axis 1."""
    return _recurrence(a, b, options.reverse)


def _states_first(x):
    """(b, L, G, N) -> (b, L, N, G, 1)."""
    return jnp.moveaxis(x, -1, 2)[..., None]


def _recurrence(a, b, reverse):
    def then(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    return jax.lax.associative_scan(then, (a, b), reverse=reverse, axis=1)[1]
