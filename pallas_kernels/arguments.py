"""Arguments and options of the scans, what the kernels support, and array helpers that several backends use."""
from typing import NamedTuple

import jax
import jax.numpy as jnp

MAX_STATE = 16              # most states per channel of a Pallas kernel
SOFTPLUS_THRESHOLD = 20.0  # beyond it softplus(x) is x, as in the original CUDA kernel
SOFTPLUS_SERIES = (0.14076062, 0.1397798, 0.20013119, 0.33333123, 1.00000001)   # artanh(s) / s by powers of s^2, the highest first


class Options(NamedTuple):
    """Static options of a scan; hashable."""
    delta_softplus: bool = True
    reverse: bool = False
    out_dtype: str = "float32"
    interpret: bool = False


class Arguments(NamedTuple):
    """Arrays of one scan, of any real floating dtypes; D and delta_bias may be None."""
    u: jax.Array           # (b, L, D)
    delta: jax.Array       # (b, L, D)
    A: jax.Array           # (D, N)
    B: jax.Array           # (b, L, G, N)
    C: jax.Array           # (b, L, G, N)
    D: jax.Array | None            # (D,)
    delta_bias: jax.Array | None   # (D,)


class CrossArguments(NamedTuple):
    """Arrays of one scan of a map along four directions, of any real floating dtypes; D and delta_bias may be None."""
    u: jax.Array           # (b, H, W, E)
    steps: jax.Array       # (b, H, W, 4, R)
    dt_weight: jax.Array   # (4, E, R)
    A: jax.Array           # (4, E, N)
    B: jax.Array           # (b, H, W, 4, N)
    C: jax.Array           # (b, H, W, 4, N)
    D: jax.Array | None            # (4, E)
    delta_bias: jax.Array | None   # (4, E)


def widened(args):
    """Every array in the compute dtype: float64 if one of them is, else float32."""
    arrays = [x for x in args if x is not None]
    dtype = jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32
    return type(args)(*(None if x is None else x.astype(dtype) for x in args))


def refusal(kernel, operation, *args):
    """The exception that a Pallas kernel raises for these arguments; None: it supports them."""
    arrays = args if operation == "linear_scan" else args[0]
    empty = [x.shape for x in arrays if x is not None and x.size == 0]
    if empty:
        return ValueError(f"implementation={kernel!r}: expected no empty array, got shape {empty[0]}; use 'xla' or 'reference'")
    wide = [x.dtype.name for x in arrays if x is not None and x.dtype in (jnp.float64, jnp.complex128)]
    if wide:
        return TypeError(f"implementation={kernel!r}: expected 32 bits per real number or fewer, got {wide[0]}; use 'xla' or 'reference'")
    if operation != "linear_scan" and arrays.A.shape[-1] > MAX_STATE:
        return ValueError(f"implementation={kernel!r}: expected at most {MAX_STATE} states, got A with {arrays.A.shape[-1]} states; "
                          "use 'xla' or 'reference'")
    return None


def narrowed(options, unwritable=("float64",)):
    """Options with output dtype float32 instead of a dtype that a kernel does not store; the caller converts the result."""
    return options._replace(out_dtype="float32") if options.out_dtype in unwritable else options


def step_size(delta, delta_bias, delta_softplus):
    """Step size of the scan: delta + delta_bias, through softplus if delta_softplus; (b, L, D)."""
    raw = delta if delta_bias is None else delta + delta_bias
    if not delta_softplus:
        return raw
    return softplus_by_logarithm(raw) if raw.dtype == jnp.float64 else _softplus(raw)


def softplus_by_logarithm(x):
    """softplus(x) by log1p, and x beyond 20 as in the original CUDA kernel: for float64, and for TPUs, which have an instruction for it."""
    return jnp.where(x > SOFTPLUS_THRESHOLD, x, jnp.log1p(jnp.exp(jnp.minimum(x, SOFTPLUS_THRESHOLD))))


def softplus_slope(dt):
    """Derivative of softplus where its value is dt: 1 - exp(-dt), exact also where dt is tiny; for passes that keep dt and not what it is of."""
    slope = jnp.tanh(0.5 * dt) * (1 + jnp.exp(-dt))
    return jnp.where(dt > SOFTPLUS_THRESHOLD, 1, slope) if dt.dtype == jnp.float64 else slope


def softplus_and_slope(x):
    """softplus(x) = log(1 + exp(x)) and its derivative for float32 x, in operations that Pallas has on GPUs.

    Both come from one exponential: log(1 + e) = 2 artanh(s) with s = e / (2 + e) in [0, 1/3], and a polynomial in s^2 that was fitted for the
    least relative error (2.3e-7 over -80..40). On a CPU, log1p takes twice the time. From x = 17 on the result is x, as in the original program
    from 20 on.
    """
    e = jnp.exp(-jnp.abs(x))
    s = e / (2.0 + e)
    square, series = s * s, SOFTPLUS_SERIES[0]
    for coefficient in SOFTPLUS_SERIES[1:]:
        series = series * square + coefficient
    return jnp.maximum(x, 0.0) + (s + s) * series, jnp.where(x < 0, e, 1.0) / (1.0 + e)


@jax.custom_jvp
def _softplus(x):
    return softplus_and_slope(x)[0]


@_softplus.defjvp
def _(primals, tangents):    # the derivative of the formula above loses digits, and is 0 instead of 1/4 for its own derivative at x = 0
    (x,), (t,) = primals, tangents
    return _softplus(x), jax.nn.sigmoid(x) * t


def grouped(x, groups):
    """(..., D) -> (..., G, D / G), group-major."""
    return x.reshape(*x.shape[:-1], groups, -1)


def ungrouped(x):
    """(..., G, D / G) -> (..., D)."""
    return x.reshape(*x.shape[:-2], -1)


def at(x, t):
    """x[:, t] of an array (b, L, ...), without a copy of x."""
    return jax.lax.dynamic_index_in_dim(x, t, 1, keepdims=False)


def put(x, value, t):
    """x with x[:, t] = value; XLA updates loop-carried arrays in place."""
    return jax.lax.dynamic_update_slice_in_dim(x, value[:, None].astype(x.dtype), t, 1)


def previous(x, reverse):
    """x_{t-1} at position t in the scan's direction along axis 1; zero at the first position."""
    rest = ((0, 0),) * (x.ndim - 2)
    return jnp.pad(x[:, 1:], ((0, 0), (0, 1), *rest)) if reverse else jnp.pad(x[:, :-1], ((0, 0), (1, 0), *rest))


def channel_sum(x):
    """Sum over the last axis, with keepdims; in two steps if a CPU can then add whole vectors first (2-3x faster than a row reduction)."""
    width = next((w for w in (32, 8) if x.shape[-1] % w == 0 and x.shape[-1] > w), None)
    if width is None:
        return x.sum(-1, keepdims=True)
    return x.reshape(*x.shape[:-1], -1, width).sum(-2).sum(-1, keepdims=True)
