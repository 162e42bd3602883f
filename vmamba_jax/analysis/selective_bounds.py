"""A sound bound of a selective scan's output over a box of inputs, by interval arithmetic through its data-dependent recurrence.

The input u is in a box, and so are the step size, B and C, which are monotone or linear in it. With v = B u, a state's next value is
exp(delta A) h + delta v. It is increasing in h and v, and for given ends of h and v the extreme over the interval of delta is at one of its ends or at
the single stationary point; this joint treatment of both places of delta is tighter than the product of their intervals. Every operation is
widened outward by a bound on its rounding error.

Source: our own; no bound of this kind is published.
"""
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

import pallas_kernels
from vmamba_jax.analysis.error_bounds import searched_error, worst_case_error
from vmamba_jax.core import checks
from vmamba_jax.core.intervals import arithmetic as ia
from vmamba_jax.core.results import Result
from vmamba_jax.models.interval_bounds import next_state


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SelectiveScan:
    """Parameters of a selective scan that computes its step size, B and C from its input u (b, L, E).

    Attributes:
        x_proj: (E, R + 2N), u -> low-rank step, B, C.
        dt_proj: (R, E), low-rank step -> step size before the bias and softplus.
        dt_bias: (E,).
        A: (E, N), negative.
        D: (E,), skip.
    """
    x_proj: jax.Array
    dt_proj: jax.Array
    dt_bias: jax.Array
    A: jax.Array
    D: jax.Array

    @classmethod
    def of(cls, mixer):
        """The scan of a `Mamba` layer's mixer, from its parameters (`params["layers_0"]["mixer"]`)."""
        return cls(mixer["x_proj"]["kernel"], mixer["dt_proj"]["kernel"], mixer["dt_proj"]["bias"], -jnp.exp(mixer["A_log"]), mixer["D"])

    def with_step(self, step):
        """The same scan with a bias for which the step size is `step` where the projection is 0."""
        return dataclasses.replace(self, dt_bias=jnp.broadcast_to(jnp.log(jnp.expm1(step)), self.dt_bias.shape))

    def projected(self, u):
        """Step size before softplus (b, L, E), B and C (b, L, N)."""
        rank, states = self.dt_proj.shape[0], self.A.shape[1]
        p = u @ self.x_proj
        return p[..., :rank] @ self.dt_proj + self.dt_bias, p[..., rank:rank + states], p[..., rank + states:]

    def __call__(self, u):
        """Output y (b, L, E)."""
        raw, B, C = self.projected(u)
        return pallas_kernels.selective_scan(u, raw, self.A, B[:, :, None], C[:, :, None], self.D)


def respond(u, scan):
    """`scan(u)`, as `searched_error` calls it."""
    return scan(u)


@functools.partial(jax.jit, static_argnames="joint")
def selective_bound(scan, low, high, *, joint=True):
    """Ends (y_low, y_high), (b, L, E) each, that no output leaves while low <= u <= high.

    Args:
        scan: a `SelectiveScan`.
        low, high: box of inputs, (b, L, E), low <= high.
        joint: treat both places of delta together; False: plain interval products, for comparison.
    """
    low, high, A = (jnp.asarray(x, jnp.promote_types(low.dtype, jnp.float32)) for x in (low, high, scan.A))
    rank, states = scan.dt_proj.shape[0], A.shape[1]
    to_step = jnp.matmul(scan.x_proj[:, :rank], scan.dt_proj, precision="highest")
    raw = _linear(low, high, to_step, jnp.abs(scan.x_proj[:, :rank]) @ jnp.abs(scan.dt_proj), scan.dt_bias)
    rest = scan.x_proj[:, rank:]
    BC = _linear(low, high, rest, jnp.abs(rest), jnp.zeros(rest.shape[1], low.dtype))
    delta = ia.widened(jax.nn.softplus(raw[0]), jax.nn.softplus(raw[1]), 8)
    delta = (jnp.maximum(delta[0], 0), delta[1])
    B, C = ([x[..., part] for x in BC] for part in (slice(states), slice(states, None)))
    first = lambda pair: tuple(x.swapaxes(0, 1) for x in pair)

    def step(h, inputs):
        (dl, dh), (bl, bh), (cl, ch), (ul, uh) = inputs
        v = ia.product((bl[:, None], bh[:, None]), (ul[..., None], uh[..., None]))     # (b, E, N)
        interval = (dl[..., None], dh[..., None])
        h = (next_state if joint else _next_plain)(A, interval, h, v)
        y = [x.sum(-1) for x in ia.product((cl[:, None], ch[:, None]), h)]
        size = (jnp.maximum(jnp.abs(cl), jnp.abs(ch))[:, None] * jnp.maximum(*map(jnp.abs, h))).sum(-1)
        skip = ia.product((scan.D, scan.D), (ul, uh))
        return h, ia.widened(y[0] + skip[0], y[1] + skip[1], states + 8, size + jnp.maximum(*map(jnp.abs, skip)))

    zero = jnp.zeros((low.shape[0], low.shape[2], states), low.dtype)
    _, y = lax.scan(step, ia.Interval(zero, zero), (first(delta), first(B), first(C), first((low, high))))
    return first(y)


def _next_plain(A, delta, h, v):
    """The same, from the intervals of exp(delta A) and of delta v, each on its own."""
    decay = (jnp.exp(delta[1] * A), jnp.exp(delta[0] * A))
    low, high = (a + b for a, b in zip(ia.product(decay, h), ia.product(delta, v), strict=True))
    return ia.widened(low, high, 16, jnp.maximum(*map(jnp.abs, h)) + delta[1] * jnp.maximum(*map(jnp.abs, v)))


def _linear(low, high, W, magnitude, bias):
    """Ends of u W + bias over a box of u; magnitude: bound on |W| that also covers a product of factors."""
    center, radius = (low + high) / 2, (high - low) / 2
    middle, spread = (jnp.matmul(x, w, precision="highest") for x, w in ((center, W), (radius, jnp.abs(W))))
    size = jnp.matmul(jnp.abs(center) + radius, magnitude, precision="highest") + jnp.abs(bias)
    return ia.widened(middle + bias - spread, middle + bias + spread, 2 * low.shape[-1] + 16, size)


def bound_looseness(scan, u, eps, key, *, samples=1000, steps=40, joint=True) -> Result:
    """How far the sound bound of a scan's output is from what sampling and search find.

    Args:
        scan: a `SelectiveScan`.
        u: input (1, L, E), the center of the box.
        eps: half width of the box.
        key: random key.
        samples: uniform points of the box and as many of its corners.
        steps: of `searched_error`.
        joint: as for `selective_bound`.

    Returns:
        {"width", "sampled" (L,): largest width of the bound over the channels and of the sampled outputs' range at each step; "looseness" (L,): mean over the
        channels of bound / sampled; "searched", "bound" (E,): error at the last step found by search, and the larger side of the bound around the clean
        output; "outside": number of sampled outputs outside the bound, 0 for a sound bound}.
    """
    eps, samples = checks.number("eps", eps, above=0), checks.count("samples", samples)
    low, high = selective_bound(scan, u - eps, u + eps, joint=joint)
    keys = jax.random.split(key, 3)
    uniform = jax.random.uniform(keys[0], (samples, *u.shape[1:]), u.dtype, -eps, eps)
    corners = eps * jax.random.rademacher(keys[1], (samples, *u.shape[1:]), u.dtype)
    # the perturbed inputs are clipped, because u + d may round out of the box
    y = jax.jit(lambda d: scan(jnp.clip(u + d, u - eps, u + eps)))(jnp.concatenate([uniform, corners]))
    width, sampled, clean = (high - low)[0], y.max(0) - y.min(0), jax.jit(respond)(u, scan)[:, -1]
    return Result({"width": width.max(-1), "sampled": sampled.max(-1), "looseness": (width / sampled).mean(-1),
                   "searched": searched_error(respond, u, eps, keys[2], arguments=(scan,), steps=steps)[0],
                   "bound": jnp.maximum(high[:, -1] - clean, clean - low[:, -1])[0], "outside": ((y < low) | (y > high)).sum()},
                  steps=("width", "sampled", "looseness"), channels=("searched", "bound"))


def error_growth(scan, u, eps, step_sizes, key, *, steps=40) -> Result:
    """Output error at the last step of a data-dependent scan against its step size, beside that of the same scan with fixed parameters.

    Args:
        scan: a `SelectiveScan`; its bias is set to each of the step sizes.
        u: input (1, L, E).
        eps: bound on each entry of the perturbation.
        step_sizes: (S,), positive.
        key, steps: of `searched_error`.

    Returns:
        {"step_sizes" (S,); "searched", "bound" (S,): largest error over the channels that search finds, and its sound bound; "fixed" (S,): exact worst case
        of the convolution with the same A and D, that step size, and the mean of B and C over the sequence; "clean" (S,): largest |y| at the last step}.
    """
    step_sizes = jnp.asarray(step_sizes, u.dtype)
    if step_sizes.ndim != 1 or not bool((step_sizes > 0).all()):
        raise ValueError(f"step_sizes={step_sizes.tolist()}: expected a sequence of positive numbers")
    eps = checks.number("eps", eps, above=0)
    _, B, C = (x.mean((0, 1)) for x in scan.projected(u))
    rows = [_growth(scan.with_step(step), u, eps, step, B, C, key, steps) for step in step_sizes]
    return Result({"step_sizes": step_sizes} | {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}, step_sizes=("step_sizes", *rows[0]))


@functools.partial(jax.jit, static_argnums=(2, 7))
def _growth(scan, u, eps, step, B, C, key, steps):
    low, high = selective_bound(scan, u - eps, u + eps)
    clean = scan(u)[:, -1]
    lags = jnp.arange(u.shape[1], dtype=u.dtype)
    kernel = (C * jnp.exp(lags[:, None, None] * step * scan.A) * step * B).sum(-1).T.at[:, 0].add(scan.D)    # (E, L)
    searched = searched_error(respond, u, eps, key, arguments=(scan,), steps=steps)
    return {"searched": searched.max(), "bound": jnp.maximum(high[:, -1] - clean, clean - low[:, -1]).max(),
            "fixed": worst_case_error(kernel, eps)[:, -1].max(), "clean": jnp.abs(clean).max()}
