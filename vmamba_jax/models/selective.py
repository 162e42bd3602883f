"""One direction's selective scan as a mixer uses it: gradients cut at chosen places, or the discretised decay given."""
import jax
import jax.numpy as jnp

import pallas_kernels
from pallas_kernels.common import step_size


def scan(u, raw, A, B, C, D, bias, *, stop_gradients=(), **options):
    """y (b, L, E) of `pallas_kernels.selective_scan` with the step size's gradient cut, the forward pass the same to the bit.

    Args:
        u, raw: input and step size before bias and softplus, (b, L, E).
        A, B, C: (E, N) and (b, L, N) twice.
        D, bias: (E,).
        stop_gradients: "delta" cuts the step size everywhere, "A_bar" only in exp(delta A), "B_bar_delta" only in delta B; others are ignored.
        options: `reverse`, `implementation`.
    """
    B, C = B[:, :, None], C[:, :, None]
    cut_decay, cut_input = ("delta" in stop_gradients or name in stop_gradients for name in ("A_bar", "B_bar_delta"))
    if cut_decay == cut_input:
        fixed = jax.lax.stop_gradient((raw, bias)) if cut_decay else (raw, bias)
        A = jax.lax.stop_gradient(A) if "A_bar" in stop_gradients else A
        return pallas_kernels.selective_scan(u, fixed[0], A, B, C, D, fixed[1], **options)
    # The input term is delta B u. `ghost` is exactly zero, but its derivative is u's share of delta: with delta stopped in the scan, u + ghost
    # leaves the input term as delta's only path; with delta live, u - ghost takes that path away.
    delta = step_size(raw.astype(jnp.promote_types(raw.dtype, jnp.float32)), bias, True)
    fixed = jax.lax.stop_gradient(delta)
    ghost = u * (delta - fixed) / jnp.where(fixed == 0, 1, fixed)
    if cut_decay:
        raw, A, bias = jax.lax.stop_gradient((raw, A, bias))
    else:
        ghost = -ghost
    return pallas_kernels.selective_scan(u + ghost, raw, A, B, C, D, bias, **options) - D * ghost


def open_scan(u, delta, A_bar, B, C, D, *, reverse, implementation):
    """The same scan from the step size after softplus (b, L, E) and A_bar = exp(delta A), (b, L, E, N), held in memory whole."""
    inputs = (delta * u)[..., None] * B[:, :, None]
    flat = lambda x: x.reshape(*x.shape[:2], -1)
    h = pallas_kernels.linear_scan(flat(A_bar), flat(inputs), reverse=reverse, implementation=implementation).reshape(A_bar.shape)
    return (h * C[:, :, None]).sum(-1) + D * u
