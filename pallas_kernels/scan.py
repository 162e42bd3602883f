"""The public scans: arguments checked, backend chosen."""
import jax.numpy as jnp

from pallas_kernels import reference, xla
from pallas_kernels.common import Arguments, Options
from pallas_kernels.differentiation import differentiable

IMPLEMENTATIONS = ("reference", "xla", "pallas_tpu", "pallas_gpu")
_PALLAS = ("pallas_tpu", "pallas_gpu")


def selective_scan(u, delta, A, B, C, D=None, delta_bias=None, *, delta_softplus=True, reverse=False, implementation=None, interpret=False):
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
        implementation: None (chosen by the platform the call is compiled for), "reference" (plain loop: any derivative, forward mode too),
            "xla", "pallas_tpu" or "pallas_gpu".
        interpret: run a Pallas kernel in interpret mode on CPU.

    Returns:
        y, (batch, length, channels), float32 (float64 if any argument is). All arithmetic is in that dtype, whatever the arguments'.

    Raises:
        ValueError, TypeError: a shape, dtype or option that does not fit, named with its value.
        NotImplementedError: a backend this version does not have.
    """
    implementation = _backend(implementation, interpret)
    args = _arguments(u, delta, A, B, C, D, delta_bias)
    options = Options(bool(delta_softplus), bool(reverse))
    if implementation == "reference":
        return reference.selective_scan(args, options)
    return differentiable(xla.forward, xla.backward, reference.selective_scan, options)(args)


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
    implementation = _backend(implementation, interpret)
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
    return (reference if implementation == "reference" else xla).linear_scan(a, b, bool(reverse))


def _backend(implementation, interpret):
    if implementation is None:
        if interpret:
            raise ValueError("interpret=True is for implementation='pallas_tpu' or 'pallas_gpu'; got implementation=None")
        return "xla"
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={implementation!r}; expected None or one of {', '.join(IMPLEMENTATIONS)}")
    if implementation in _PALLAS:
        raise NotImplementedError(f"implementation={implementation!r} is not part of this version; use None, 'xla' or 'reference'")
    if interpret:
        raise ValueError(f"interpret=True is for Pallas kernels; got implementation={implementation!r}")
    return implementation


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
    double = any(x is not None and x.dtype == jnp.float64 for x in named.values())
    dtype = jnp.float64 if double else jnp.float32
    return Arguments(**{name: None if x is None else x.astype(dtype) for name, x in named.items()})

