"""Hidden attention of a selective scan: the matrix of each of VMamba's forms, averaged over channels.

A selective scan is y_i = sum_{j <= i} M_ij u_j + D u_i for each channel e, with M_ij = sum_n C_in exp(A_en sum_{j < t <= i} delta_te) delta_je B_jn.
The decay between two steps is the exponential of a sum, never a quotient of cumulative products, which underflow.

Source: VMamba (Liu et al., arXiv 2401.10166), section on the relation to self-attention; Ali et al., arXiv 2403.01590.
"""
import jax.numpy as jnp
from jax import lax

from vmamba_jax.core import checks

FORMS = ("CB", "CB_delta", "decay", "CB_decay", "CB_delta_decay")
"""CB: C_i . B_j; delta: times the step size at j; decay: times the decay from j to i, or that decay alone, summed over the states. In this order
the released program's modes CB, CBdt, ww, CwBw and CwBdtw."""
NORMALIZATIONS = ("min_max", "absolute")
CHUNK = 32  # rows at a time


def attention(delta, A, B, C, form="CB_delta_decay"):
    """Matrix (L, L) of one scan: query i, key j, lower triangular, the mean over channels. `form`="CB_delta_decay" of one channel maps u to y - D u.

    At no time more than L + CHUNK^2 times E N numbers are held. Rounding errors are those of sums over at most the steps between j and i.

    Args:
        delta: step sizes after softplus (L, E), in the order of the scan.
        A: (E, N), negative.
        B, C: (L, N).
        form: one of `FORMS`.
    """
    checks.choice("form", form, FORMS)
    q, k = (jnp.ones_like(C), jnp.ones_like(B)) if form == "decay" else (C, B)
    if "decay" not in form:
        k = k * delta.mean(1, keepdims=True) if "delta" in form else k
        return jnp.tril(jnp.matmul(q, k.T, precision="highest"))
    k = delta[:, :, None] * k[:, None] if "delta" in form else jnp.broadcast_to(k[:, None], (len(k), *A.shape))
    return _decayed(delta[:, :, None] * A, q[:, None], k) / len(A)


def _decayed(logs, q, k):
    """sum_{e, n} q_i exp(sum_{j < t <= i} logs_t) k_j for j <= i, CHUNK rows at a time: (L, L).

    Args:
        logs: logarithms of the decays, (L, E, N), at most 0.
        q, k: (L, 1, N) and (L, E, N).
    """
    length, rows = len(logs), min(CHUNK, len(logs))
    logs, q, k = (jnp.pad(x, ((0, -length % rows), (0, 0), (0, 0))) for x in (logs, q, k))
    dot = lambda q, k: jnp.matmul(q.reshape(len(q), -1), k.reshape(len(k), -1).T, precision="highest")
    later = jnp.tri(rows, k=-1, dtype=bool)[:, :, None, None]   # [t, j]: step t is after j

    def chunk(sums, start):
        """Rows start to start + rows; sums_j: the logarithm of the decay from j to start - 1, for j < start."""
        own, q_own, k_own = (lax.dynamic_slice_in_dim(x, start, rows) for x in (logs, q, k))
        before = (jnp.arange(len(logs)) < start)[:, None, None]
        earlier = dot(q_own * jnp.exp(jnp.cumsum(own, 0)), jnp.where(before, jnp.exp(sums) * k, 0))
        between = jnp.cumsum(jnp.where(later, own[:, None], 0), 0)              # [i, j]: sum over j < t <= i
        within = jnp.where(jnp.tri(rows, dtype=bool), (q_own[:, None] * jnp.exp(between) * k_own).sum((2, 3)), 0)
        sums = lax.dynamic_update_slice_in_dim(jnp.where(before, sums + own.sum(0), 0), between[-1], start, 0)
        return sums, lax.dynamic_update_slice_in_dim(earlier, within, start, 1)

    found = lax.scan(chunk, jnp.zeros_like(logs), jnp.arange(0, len(logs), rows))[1]
    return found.reshape(len(logs), len(logs))[:length, :length]


def attention_of_scans(delta, A, B, C, routes, form="CB_delta_decay", raster=True):
    """`attention` of every image and scan, one after the other: (b, K, L, L).

    Args:
        delta, B, C: (b, K, L, E), (b, K, L, N) twice, by position.
        A: (K, E, N).
        routes: (K, L), the position that scan k visits at each step.
        form: one of `FORMS`.
        raster: queries and keys are positions; False: they are steps of each scan.
    """
    routes = jnp.asarray(routes)
    ranks = jnp.argsort(routes, axis=1)

    def one(arguments):
        delta, A, B, C, route, rank = arguments
        found = attention(delta[route], A, B[route], C[route], form)
        return found[rank][:, rank] if raster else found
    scans = lambda states: lax.map(one, (states[0], A, *states[1:], routes, ranks))
    return lax.map(scans, (delta, B, C))


def normalized(matrices, normalization):
    """Matrices (..., L, L), each by its own range.

    Args:
        normalization: "min_max": from 0 to 1; "absolute": |x| / max |x|; None: as they are. A constant matrix becomes 0 by "min_max".
    """
    if normalization is None:
        return matrices
    if checks.choice("normalization", normalization, NORMALIZATIONS) == "absolute":
        matrices = jnp.abs(matrices)
        low = jnp.zeros((), matrices.dtype)
    else:
        low = matrices.min((-2, -1), keepdims=True)
    span = matrices.max((-2, -1), keepdims=True) - low
    return jnp.where(span > 0, (matrices - low) / jnp.where(span > 0, span, 1), 0)


def rolled_out(matrices):
    """Product of 0.5 (M + I) over a stage's matrices, the first first, each divided by the sums of its rows: (..., L, L).

    Args:
        matrices: sequence of (..., L, L), without negative entries.

    Source: Abnar and Zuidema, arXiv 2005.00928, with VMamba's matrices.
    """
    found = None
    for M in matrices:
        M = 0.5 * (M + jnp.eye(M.shape[-1], dtype=M.dtype))
        M = M / M.sum(-1, keepdims=True)
        found = M if found is None else jnp.matmul(M, found, precision="highest")
    return found
