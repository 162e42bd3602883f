"""The scans by their definition, one step after the other: slow, any float dtype, differentiable to any order and in forward mode."""
import jax
import jax.numpy as jnp

from pallas_kernels import cross
from pallas_kernels.arguments import grouped, step_size, ungrouped, widened


def selective_scan(args, options):
    """y of `scan.selective_scan`."""
    args = widened(args)
    groups = args.B.shape[2]
    A = grouped(args.A.T, groups)                                      # (N, G, D/G)

    def step(h, inputs):
        u, dt, B, C = inputs                                           # (b, G, D/G) twice, (b, G, N) twice
        B, C = (jnp.moveaxis(x, -1, 1)[..., None] for x in (B, C))     # (b, N, G, 1)
        dt, u = dt[:, None], u[:, None]
        h = jnp.exp(dt * A) * h + dt * B * u                           # (b, N, G, D/G)
        return h, (h * C).sum(1)

    dt = step_size(args.delta, args.delta_bias, options.delta_softplus)
    inputs = [jnp.moveaxis(x, 1, 0) for x in (grouped(args.u, groups), grouped(dt, groups), args.B, args.C)]
    start = jnp.zeros((args.u.shape[0], *A.shape), args.u.dtype)
    _, y = jax.lax.scan(step, start, inputs, reverse=options.reverse)
    y = ungrouped(jnp.moveaxis(y, 0, 1))
    y = y if args.D is None else y + args.D * args.u
    return y.astype(options.out_dtype)


def cross_selective_scan(args, options):
    """Merged map of `scan.cross_selective_scan`."""
    return cross.merged(selective_scan, args, options)


def linear_scan(a, b, options):
    """h_t = a_t h_{t-1} + b_t along axis 1."""
    def step(h, inputs):
        h = inputs[0] * h + inputs[1]
        return h, h

    inputs = jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0)
    return jnp.moveaxis(jax.lax.scan(step, jnp.zeros_like(b[:, 0]), inputs, reverse=options.reverse)[1], 0, 1)
