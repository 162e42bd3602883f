"""The scans of `pallas_kernels` as one would write them without a kernel: `lax.associative_scan` and autodiff, every state in memory."""
import functools

import jax
import jax.numpy as jnp


def associative_scan(u, delta, A, B, C, D=None, delta_bias=None, *, delta_softplus=True, reverse=False, **_):
    """y of `pallas_kernels.selective_scan`."""
    u, delta, B, C = (x.astype(jnp.float32) for x in (u, delta, B, C))
    dt = delta if delta_bias is None else delta + delta_bias
    dt = jax.nn.softplus(dt) if delta_softplus else dt
    B, C = (jnp.repeat(x, u.shape[2] // x.shape[2], axis=2) for x in (B, C))  # (b, L, D, N)

    def then(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    decay, inputs = jnp.exp(dt[..., None] * A), (dt * u)[..., None] * B
    _, h = jax.lax.associative_scan(then, (decay, inputs), reverse=reverse, axis=1)
    y = (h * C).sum(-1)
    return y if D is None else y + D * u


def cross_associative_scan(u, steps, dt_weight, A, B, C, D=None, delta_bias=None, *, delta_softplus=True, **_):
    """y of `pallas_kernels.cross_selective_scan`: four scans, those down the columns over the transposed map."""
    y = 0
    for k in range(4):
        turn = (lambda x: jnp.swapaxes(x, 1, 2)) if k % 2 else (lambda x: x)
        flat = lambda x, turn=turn: turn(x).reshape(x.shape[0], -1, *x.shape[3:])
        delta = flat(steps[..., k, :]) @ dt_weight[k].T
        scan = functools.partial(associative_scan, delta_softplus=delta_softplus, reverse=k > 1)
        out = scan(flat(u), delta, A[k], flat(B[..., k, :])[:, :, None], flat(C[..., k, :])[:, :, None], None if D is None else D[k],
                   None if delta_bias is None else delta_bias[k])
        y = y + turn(out.reshape(turn(u).shape))
    return y
