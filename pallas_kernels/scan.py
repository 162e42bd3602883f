"""The public scans: arguments checked, backend chosen."""
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels.common import Arguments, Options


def selective_scan(u, delta, A, B, C, D=None, delta_bias=None, *, delta_softplus=True, reverse=False, out_dtype=None, implementation=None,
                   interpret=False):
    """Selective scan (Gu & Dao 2023, arXiv 2312.00752, eq. 2 with the Euler input step; VMamba, arXiv 2401.10166).

    With dt = softplus(delta + delta_bias), per channel d of group g and state n, h before the first step being 0:

        h_t[n] = exp(dt_t A[d, n]) h_{t-1}[n] + dt_t B_t[g, n] u_t,      y_t = sum_n C_t[g, n] h_t[n] + D[d] u_t

    Args:
        u: input, (batch, length, channels); channels = groups * channels_per_group, group-major.
        delta: step size before bias and softplus, (batch, length, channels).
        A: decay rates, (channels, state), negative for a stable scan.
        B: input map, (batch, length, groups, state).
        C: output map, (batch, length, groups, state).
        D: skip weight, (channels,), or None for no skip.
        delta_bias: (channels,) or None.
        delta_softplus: pass delta + delta_bias through softplus (linear above 20).
        reverse: run the recurrence from the last position to the first; nothing is flipped.
        out_dtype: dtype of y; None means float32 (float64 if any argument is).
        implementation: None (chosen by the platform the call is compiled for), "reference" (plain loop: any derivative, forward mode too),
            "xla", "pallas_tpu" or "pallas_gpu".
        interpret: run a Pallas kernel in interpret mode on CPU.

    Returns:
        y, (batch, length, channels). All arithmetic is in float32, whatever the arguments' dtypes (in float64 if any of them is).

    Raises:
        ValueError, TypeError: a shape, dtype or option that does not fit, named with its value.
            The Pallas kernels take N up to 16 and no float64.
    """
    dispatch.check(implementation, interpret)
    args, dtype = _arguments(u, delta, A, B, C, D, delta_bias)
    options = Options(bool(delta_softplus), bool(reverse), _floating("out_dtype", out_dtype or dtype), bool(interpret))
    return dispatch.call("selective_scan", implementation, options, args)


def linear_scan(a, b, *, reverse=False, implementation=None, interpret=False):
    """First-order recurrence h_t = a_t h_{t-1} + b_t along axis 1, the associative scan under every state space model.

    Args:
        a: decay, (batch, length, channels), real or complex; axes of size 1 are broadcast.
        b: input, (batch, length, channels), real or complex.
        reverse: run from the last position to the first.
        implementation, interpret: as for `selective_scan`.

    Returns:
        every h_t, (batch, length, channels), in at least float32 or complex64.

    Raises:
        ValueError, TypeError: a shape, dtype or option that does not fit, named with its value.
    """
    dispatch.check(implementation, interpret)
    a, b = jnp.asarray(a), jnp.asarray(b)
    for name, x in (("a", a), ("b", b)):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"{name} has dtype {x.dtype}; expected a real or complex floating dtype")
        if x.ndim != 3:
            raise ValueError(f"{name} has shape {x.shape}; expected (batch, length, channels)")
    if any(n not in (1, m) for n, m in zip(a.shape, b.shape, strict=True)):
        raise ValueError(f"a has shape {a.shape}; expected {b.shape} (b's), or 1 on axes to broadcast")
    dtype = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    a, b = jnp.broadcast_to(a, b.shape).astype(dtype), b.astype(dtype)
    return dispatch.call("linear_scan", implementation, Options(reverse=bool(reverse), interpret=bool(interpret)), a, b)


def _floating(name, dtype):
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}={dtype.name}; expected a real floating dtype")
    return dtype.name


def _arguments(u, delta, A, B, C, D, delta_bias):
    named = dict(u=u, delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    named = {name: None if x is None else jnp.asarray(x) for name, x in named.items()}
    for name, x in named.items():
        if x is None and name not in ("D", "delta_bias"):
            raise TypeError(f"{name} is None; expected an array")
        if x is not None and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} has dtype {x.dtype}; expected a real floating dtype")
    if named["u"].ndim != 3:
        raise ValueError(f"u has shape {named['u'].shape}; expected (batch, length, channels)")
    batch, length, channels = named["u"].shape
    if length < 1:
        raise ValueError(f"u has shape {named['u'].shape}; expected a length of at least 1")
    if named["A"].ndim != 2 or named["A"].shape[0] != channels or named["A"].shape[1] < 1:
        raise ValueError(f"A has shape {named['A'].shape}; expected (channels, state) with channels={channels}")
    state = named["A"].shape[1]
    if named["B"].ndim != 4 or named["B"].shape[2] < 1:
        raise ValueError(f"B has shape {named['B'].shape}; expected (batch, length, groups, state) = ({batch}, {length}, groups, {state})")
    groups = named["B"].shape[2]
    if channels % groups:
        raise ValueError(f"B has {groups} groups, which do not divide u's {channels} channels")
    for name, shape in (("delta", (batch, length, channels)), ("B", (batch, length, groups, state)), ("C", (batch, length, groups, state)),
                        ("D", (channels,)), ("delta_bias", (channels,))):
        if named[name] is not None and named[name].shape != shape:
            raise ValueError(f"{name} has shape {named[name].shape}; expected {shape}")
    dtype = jnp.float64 if any(x is not None and x.dtype == jnp.float64 for x in named.values()) else jnp.float32
    return Arguments(**named), dtype

