"""One direction's selective scan for a mixer: with gradients cut at chosen places, or from given decays."""
import functools
import math

import jax
import jax.numpy as jnp

import pallas_kernels
from pallas_kernels.arguments import step_size


def step_bias(key, shape, dtype=jnp.float32):
    """Initializer of a step size's bias: softplus(bias) is log-uniform in [0.001, 0.1].

    Source: Mamba (Gu and Dao, arXiv 2312.00752), section 3.6.
    """
    step = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(0.001), math.log(0.1)))
    return step + jnp.log(-jnp.expm1(-step))


def scan(u, raw, A, B, C, D, bias, *, stop_gradients=(), reverse, implementation):
    """Output y (b, L, E) of `pallas_kernels.selective_scan`, with the step size's gradient cut; the forward pass stays bit-identical.

    Args:
        u, raw: input and step size before bias and softplus, (b, L, E).
        A: (E, N).
        B, C: (b, L, N).
        D, bias: (E,).
        stop_gradients: "delta" cuts the step size everywhere, "A_bar" only in exp(delta A), "B_bar_delta" only in delta B; other names are ignored.
        reverse, implementation: as for `pallas_kernels.selective_scan`.
    """
    B, C = B[:, :, None], C[:, :, None]
    run = functools.partial(pallas_kernels.selective_scan, reverse=reverse, implementation=implementation)
    decay, input_ = ("delta" in stop_gradients or name in stop_gradients for name in ("A_bar", "B_bar_delta"))
    A = jax.lax.stop_gradient(A) if "A_bar" in stop_gradients else A
    if decay and input_:
        raw, bias = jax.lax.stop_gradient((raw, bias))
    if decay == input_:
        return run(u, raw, A, B, C, D, bias)
    wide = jnp.promote_types(jnp.promote_types(u.dtype, raw.dtype), jnp.float32)
    return _one_path(run, decay)(u.astype(wide), raw.astype(wide), A, B, C, D, bias)


def _one_path(run, input_only):
    """`run` with delta's gradient through delta B alone (`input_only`), or through exp(delta A) alone.

    Delta's gradient through the input delta B u is u times the cotangent of delta u; that cotangent is u's gradient less D dy, divided by delta.
    """
    @jax.custom_vjp
    def scan(*args):
        return run(*args)

    def forward(*args):
        y, pullback = jax.vjp(run, *args)
        return y, (pullback, args)

    def backward(residuals, dy):
        pullback, (u, raw, _, _, _, D, bias) = residuals
        du, draw, dA, dB, dC, dD, dbias = pullback(dy)
        delta, softplus = jax.vjp(lambda raw: step_size(raw, bias, True), raw)
        through_input = softplus((du - D * dy) * u / jnp.where(delta == 0, 1, delta))[0]
        draw = through_input if input_only else draw - through_input
        return du, draw, dA, dB, dC, dD, draw.sum((0, 1)).astype(dbias.dtype)

    scan.defvjp(forward, backward)
    return scan


def scan_of_decays(u, delta, A_bar, B, C, D, *, reverse, implementation):
    """The same scan from the step size after softplus (b, L, E) and the decays A_bar = exp(delta A), (b, L, E, N), which stay in memory."""
    inputs = (delta * u)[..., None] * B[:, :, None]
    flat = lambda x: x.reshape(*x.shape[:2], -1)
    h = pallas_kernels.linear_scan(flat(A_bar), flat(inputs), reverse=reverse, implementation=implementation).reshape(A_bar.shape)
    return (h * C[:, :, None]).sum(-1) + D * u
