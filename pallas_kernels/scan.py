"""The public scans: they check the arguments and call a backend."""
import jax.numpy as jnp

from pallas_kernels import backends, boundary
from pallas_kernels.arguments import Arguments, CrossArguments, Options

DIRECTIONS = 4


def selective_scan(u, delta, A, B, C, D=None, delta_bias=None, *, delta_softplus=True, reverse=False, out_dtype=None, implementation=None,
                   interpret=False, initial_state=None, return_last_state=False):
    """Selective scan (Gu & Dao 2023, arXiv 2312.00752, eq. 2 with the Euler input step; VMamba, arXiv 2401.10166).

    With dt = softplus(delta + delta_bias), per channel d of group g and state n, with h = initial_state before the first step:

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
        reverse: run the recurrence from the last position to the first, without flipped copies.
        out_dtype: dtype of y; None: float32 (float64 if any argument is).
        implementation: None (selected by the platform the call is lowered for, see `platforms`), "reference" (plain loop: any derivative,
            forward mode too),
            "associative" (`lax.associative_scan`, every state in memory: any derivative too), "xla", "pallas_tpu" or "pallas_gpu".
        interpret: run a Pallas kernel in interpret mode on CPU.
        initial_state: h before the first step in the scan's direction, (batch, channels, state); None: zeros.
        return_last_state: also return h after the last step, the initial state of the sequence's next piece.

    Returns:
        y, (batch, length, channels); with return_last_state, (y, last state in the compute dtype, (batch, channels, state)). All arithmetic is
        in float32, whatever the arguments' dtypes (in float64 if any of them is). The scan of a sequence in pieces, each from the last state
        of the piece before, equals the scan of the whole to rounding, and so do the gradients. With either state the scan has N more
        positions, and reads its arguments in the compute dtype.

    Raises:
        ValueError, TypeError: an argument with a wrong shape, dtype or value.
            The Pallas kernels support at most 16 states and no float64.
    """
    backends.check(implementation, interpret)
    args, dtype = _arguments(u, delta, A, B, C, D, delta_bias)
    options = Options(bool(delta_softplus), bool(reverse), _floating("out_dtype", out_dtype or dtype), bool(interpret))
    if initial_state is None and not return_last_state:
        return backends.call("selective_scan", implementation, options, args)
    state = args.A.shape[1]
    if initial_state is not None:
        initial_state = _floats(initial_state=initial_state)["initial_state"]
        _expect("initial_state", initial_state, (args.u.shape[0], args.u.shape[2], state))
    y = backends.call("selective_scan", implementation, *boundary.extended(args, options, initial_state, return_last_state)[::-1])
    return boundary.separated(y, options, state, initial_state is not None, return_last_state)


def cross_selective_scan(u, steps, dt_weight, A, B, C, D=None, delta_bias=None, *, delta_softplus=True, out_dtype=None, implementation=None,
                         interpret=False):
    """Selective scans of a map along four directions, merged (SS2D's core, VMamba, arXiv 2401.10166, section 4.2).

    Direction 0 visits the map row by row, 1 column by column, 2 and 3 in the reverse orders; each is a `selective_scan` whose delta is
    steps @ dt_weight[k].T. Their outputs are summed on the map. On TPU this is one kernel for N = 1 and maps that fit VMEM.

    Args:
        u: input map, (batch, height, width, channels).
        steps: low-rank step sizes, (batch, height, width, 4, rank).
        dt_weight: projection of the steps, (4, channels, rank).
        A: decay rates, (4, channels, state), negative for a stable scan.
        B, C: input and output maps, (batch, height, width, 4, state).
        D: skip weights, (4, channels), or None.
        delta_bias: (4, channels) or None.
        delta_softplus, out_dtype, implementation, interpret: as for `selective_scan`.

    Returns:
        the sum of the four scans, (batch, height, width, channels).

    Raises:
        ValueError, TypeError: an argument with a wrong shape, dtype or value.
    """
    backends.check(implementation, interpret)
    named = _floats(u=u, steps=steps, dt_weight=dt_weight, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    _expect("u", named["u"], ("batch", "height", "width", "channels"))
    batch, height, width, channels = named["u"].shape
    if height * width < 1:
        raise ValueError(f"u.shape={named['u'].shape}: expected a map of at least one position")
    _expect("steps", named["steps"], (batch, height, width, DIRECTIONS, "rank"))
    _expect("A", named["A"], (DIRECTIONS, channels, "state"))
    rank, state = named["steps"].shape[-1], named["A"].shape[-1]
    for name, shape in (("dt_weight", (DIRECTIONS, channels, rank)), ("B", (batch, height, width, DIRECTIONS, state)),
                        ("C", (batch, height, width, DIRECTIONS, state)), ("D", (DIRECTIONS, channels)),
                        ("delta_bias", (DIRECTIONS, channels))):
        if named[name] is not None:
            _expect(name, named[name], shape)
    options = Options(bool(delta_softplus), False, _floating("out_dtype", out_dtype or _compute_dtype(named)), bool(interpret))
    return backends.call("cross_selective_scan", implementation, options, CrossArguments(**named))


def linear_scan(a, b, *, reverse=False, implementation=None, interpret=False, initial_state=None, return_last_state=False):
    """First-order recurrence h_t = a_t h_{t-1} + b_t along axis 1, the associative scan of every state space model.

    Args:
        a: decay, (batch, length, channels), real or complex; axes of size 1 broadcast.
        b: input, (batch, length, channels), real or complex.
        reverse: run from the last position to the first.
        implementation, interpret: as for `selective_scan`.
        initial_state: h before the first step in the scan's direction, (batch, channels), real or complex; None: zeros.
        return_last_state: also return h after the last step, (batch, channels).

    Returns:
        every h_t, (batch, length, channels), in at least float32 or complex64; with return_last_state, (every h_t, last h_t).

    Raises:
        ValueError, TypeError: an argument with a wrong shape, dtype or value.
    """
    backends.check(implementation, interpret)
    a, b = jnp.asarray(a), jnp.asarray(b)
    for name, x in (("a", a), ("b", b)):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"{name}.dtype={x.dtype}: expected a real or complex floating dtype")
        if x.ndim != 3:
            raise ValueError(f"{name}.shape={x.shape}: expected (batch, length, channels)")
    if any(n not in (1, m) for n, m in zip(a.shape, b.shape, strict=True)):
        raise ValueError(f"a.shape={a.shape}: expected {b.shape}, as b, or 1 on axes to broadcast")
    dtype = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    first, last = (-1, 0) if reverse else (0, -1)
    if initial_state is not None:
        initial_state = jnp.asarray(initial_state)
        if not jnp.issubdtype(initial_state.dtype, jnp.inexact):
            raise TypeError(f"initial_state.dtype={initial_state.dtype}: expected a real or complex floating dtype")
        _expect("initial_state", initial_state, (b.shape[0], b.shape[2]))
        dtype = jnp.promote_types(dtype, initial_state.dtype)
    a, b = jnp.broadcast_to(a, b.shape).astype(dtype), b.astype(dtype)
    if (initial_state is not None or return_last_state) and not b.shape[1]:
        raise ValueError(f"b.shape={b.shape}: expected at least one step from or to a state")
    if initial_state is not None:
        b = b.at[:, first].add(a[:, first] * initial_state)
    h = backends.call("linear_scan", implementation, Options(reverse=bool(reverse), interpret=bool(interpret)), a, b)
    return (h, h[:, last]) if return_last_state else h


def _floating(name, dtype):
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}={dtype.name}: expected a real floating dtype")
    return dtype.name


def _floats(**named):
    """The arguments as arrays of real floating dtypes; only D and delta_bias may be None."""
    named = {name: None if x is None else jnp.asarray(x) for name, x in named.items()}
    for name, x in named.items():
        if x is None and name not in ("D", "delta_bias"):
            raise TypeError(f"{name}=None: expected an array")
        if x is not None and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name}.dtype={x.dtype}: expected a real floating dtype")
    return named


def _expect(name, x, shape):
    """Raise a ValueError unless x has this shape; a string in it matches any size of at least 1 ("batch": any size)."""
    fits = lambda n, m: n == m or (isinstance(m, str) and (n > 0 or m == "batch"))
    if len(x.shape) != len(shape) or not all(map(fits, x.shape, shape)):
        raise ValueError(f"{name}.shape={x.shape}: expected ({', '.join(map(str, shape))})")


def _compute_dtype(named):
    return jnp.float64 if any(x is not None and x.dtype == jnp.float64 for x in named.values()) else jnp.float32


def _arguments(u, delta, A, B, C, D, delta_bias):
    named = _floats(u=u, delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    _expect("u", named["u"], ("batch", "length", "channels"))
    batch, length, channels = named["u"].shape
    _expect("A", named["A"], (channels, "state"))
    state = named["A"].shape[1]
    _expect("B", named["B"], (batch, length, "groups", state))
    groups = named["B"].shape[2]
    if channels % groups:
        raise ValueError(f"B.shape[2]={groups} groups: expected a divisor of u's {channels} channels")
    for name, shape in (("delta", (batch, length, channels)), ("C", (batch, length, groups, state)), ("D", (channels,)),
                        ("delta_bias", (channels,))):
        if named[name] is not None:
            _expect(name, named[name], shape)
    return Arguments(**named), _compute_dtype(named)
