"""States at the two ends of a selective scan, on every backend: they enter and leave by additional positions, so that a kernel needs no other form.

A position with step dt, u = h / dt, B = e_n and decay exp(dt A) = 1 adds h to state n; one with dt = 0 and C = e_n keeps every state and outputs
state n. N positions before the first and N after the last one are enough. With dt a power of two that is too small to change a decay, both are
exact, and so are their gradients.
"""
import jax.numpy as jnp

from pallas_kernels.arguments import Arguments, step_size, widened

TINY_STEP = {"float32": 2.0**-60, "float64": 2.0**-200}   # exp(TINY_STEP * A) is 1; a state / TINY_STEP is finite below 1e20


def extended(args, options, initial_state, return_last_state):
    """(arguments, options) of the scan over the additional positions too; its output is a real floating array in the compute dtype.

    Args:
        args: Arguments of the scan.
        options: its Options.
        initial_state: (batch, channels, state), or None for zeros.
        return_last_state: append the positions that output the last state.
    """
    args = widened(args)
    dtype, (batch, _, channels), state = args.u.dtype, args.u.shape, args.A.shape[1]
    dt = step_size(args.delta, args.delta_bias, options.delta_softplus)
    none = jnp.zeros((batch, state, channels), dtype)
    unit = jnp.broadcast_to(jnp.eye(state, dtype=dtype)[None, :, None], (batch, state, args.B.shape[2], state))
    pieces = [(args.u, dt, args.B, args.C)]
    if initial_state is not None:
        tiny = TINY_STEP[dtype.name]
        pieces.insert(0, (initial_state.astype(dtype).swapaxes(1, 2) / tiny, none + tiny, unit, jnp.zeros_like(unit)))
    if return_last_state:
        pieces.append((none, none, jnp.zeros_like(unit), unit))
    u, dt, B, C = (jnp.concatenate(x, 1) for x in zip(*(pieces[::-1] if options.reverse else pieces), strict=True))
    return Arguments(u, dt, args.A, B, C, args.D, None), options._replace(delta_softplus=False, out_dtype=dtype.name)


def separated(y, options, state, entered, return_last_state):
    """y of the extended scan -> y in options.out_dtype, and the last state, (batch, channels, state), if `return_last_state`.

    Args:
        y: output over all positions.
        options: Options of the scan itself.
        state: number of states.
        entered: whether there are positions of an initial state.
        return_last_state: whether there are positions of the last state.
    """
    first, last = (state if entered else 0), (state if return_last_state else 0)
    if options.reverse:
        first, last = last, first
    end = y.shape[1] - last
    inner = y[:, first:end].astype(options.out_dtype)
    if not return_last_state:
        return inner
    return inner, (y[:, :first] if options.reverse else y[:, end:]).swapaxes(1, 2)
