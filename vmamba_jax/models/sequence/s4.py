"""S4: a diagonal-plus-low-rank state space model, applied as one long convolution.

Source: Gu et al., arXiv 2111.00396; the released code of arXiv 2406.05532.
"""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.models.sequence import hippo
from vmamba_jax.models.sequence.convolution import ConvolutionLayer
from vmamba_jax.models.sequence.fields import CONSTANTS, as_complex, as_pairs, constant, log_step

REAL_PART = 1e-3  # the released code stores log(1e-3 - Re w), so Re w starts at -0.501


class S4(ConvolutionLayer):
    """S4 layer: (b, L, C) -> (b, L, C). Its fields are those of `LayerFields`.

    w, P and B are shared by the channels; C is stored as C (I - Abar^Lk), as the kernel reads it, for a length Lk that is the next power of two
    of `max_length` or of the sequence. The real part of w is a constant: it is saved, but not trained.
    """

    def kernel(self, channels, length):
        half, steps = self.d_state // 2, power_of_two(self.max_length or length)
        w, P, B = hippo.low_rank_form(self.d_state)
        param = lambda name, init, shape: self.param(name, init, shape, self.param_dtype)
        log_dt = param("log_dt", log_step, (channels,))
        log_w_real = self.variable(CONSTANTS, "log_w_real", lambda: jnp.asarray(np.log(REAL_PART - w.real), self.param_dtype)).value
        w_imag = param("w_imag", constant(w.imag), (half,))
        P, B = (as_complex(param(name, constant(hippo.pairs(x)), (half, 2))) for name, x in (("P", P), ("B", B)))
        w = jax.lax.complex(*jnp.broadcast_arrays(-jnp.exp(log_w_real), w_imag))

        def truncated(key, shape, dtype=jnp.float32):
            C = jax.random.normal(key, shape, dtype) * np.sqrt(0.5).astype(dtype)
            return as_pairs(truncate(as_complex(C), w, P, jnp.exp(log_dt), steps)).astype(dtype)
        C = as_complex(param("C", truncated, (channels, half, 2)))
        return kernel(w, P, B, C, jnp.exp(log_dt), steps)[:, :length]


def power_of_two(length):
    """The smallest power of two >= length."""
    return 1 << (length - 1).bit_length()


def kernel(w, P, B, C, dt, length):
    """Kernel (H, length) of the bilinear discretization of A = diag(w) - P P*, completed by the conjugate states.

    K = irfft of the truncated generating function at the roots of unity z. Every term 2 / (1 + z) / (2 (1 - z) / (1 + z) - dt w) is written as
    2 / (2 (1 - z) - dt w (1 + z)), which is finite at z = -1.

    Args:
        w, P, B: (N/2,), complex.
        C: (H, N/2), complex: C (I - Abar^length).
        dt: (H,), step sizes.
        length: a power of two.
    """
    angle = -np.pi * np.arange(length // 2 + 1) / length
    # 1 - z and 1 + z from half angles: no cancellation near z = 1 and z = -1
    minus, plus = (jnp.asarray(x * np.exp(1j * angle), w.dtype) for x in (-2j * np.sin(angle), 2 * np.cos(angle)))
    dt = dt.astype(jnp.finfo(w.dtype).dtype)[:, None]

    @jax.checkpoint
    def add(sums, state):
        w, P, B, C = state
        g, conjugate = (dt * 2 / (2 * minus - dt * w * plus) for w in (w, w.conj()))
        weights = (C[:, None] * B, P.conj() * B, C[:, None] * P, P.conj() * P)  # (C, B), (Q, B), (C, P), (Q, P) with Q = conj(P)
        return [s + g * v + conjugate * v.conj() for s, v in zip(sums, weights, strict=True)], None

    # state by state: 5-7 times faster on CPU than the sum of a (H, length / 2, N / 2) array, and less memory
    zeros = [jnp.zeros((len(dt), length // 2 + 1), w.dtype)] * 4
    (cb, qb, cp, qp), _ = jax.lax.scan(add, zeros, (w, P, B, C.T))
    spectrum = cb - qb * cp * plus / 2 / (1 + qp * plus / 2)
    return jnp.fft.irfft(spectrum, length, axis=-1)


def discretized(w, P, dt):
    """Abar (H, N, N) of the bilinear discretization in the conjugate-completed basis (w, conj w); the inverse is Woodbury's, with no solver."""
    w, P = (jnp.concatenate([x, x.conj()]) for x in (w, P))
    dt = dt.astype(jnp.finfo(w.dtype).dtype)[:, None] / 2
    left = 1 / (1 - dt * w)                                                 # (H, N)
    low_rank = P[:, None] * P.conj()
    inner = dt[..., None] * left[..., None] * low_rank * left[:, None]      # D^-1 P P* D^-1 dt/2
    inverse = left[..., None] * jnp.eye(len(w)) - inner / (1 + (dt * left * P * P.conj()).sum(-1))[:, None, None]
    forward = jnp.eye(len(w)) * (1 + dt * w)[:, None] - dt[..., None] * low_rank
    return jnp.matmul(inverse, forward, precision="highest")


def truncate(C, w, P, dt, length):
    """C (I - Abar^length), (H, N/2), for a length that is a power of two."""
    power = discretized(w, P, dt)
    for _ in range(length.bit_length() - 1):
        power = jnp.matmul(power, power, precision="highest")
    full = jnp.concatenate([C, C.conj()], -1)
    return (full - jnp.einsum("hn,hnm->hm", full, power, precision="highest"))[:, :C.shape[1]]
