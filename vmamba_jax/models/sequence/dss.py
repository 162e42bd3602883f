"""DSS: a diagonal state space model in its softmax form, applied as one long convolution.

Source: Gupta et al., arXiv 2203.14343, proposition 1; the released code of arXiv 2406.05532.
"""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.models.sequence import hippo
from vmamba_jax.models.sequence.convolution import ConvolutionLayer, exponentials
from vmamba_jax.models.sequence.fields import as_complex, constant, log_step

EPS = 1e-7  # of the reciprocal 1 / q as conj(q) / (|q|^2 + EPS)


class DSS(ConvolutionLayer):
    """DSS layer: (b, L, C) -> (b, L, C). Its fields are those of `LayerFields`; w (N/2,) is trained as it is, and its real part may cross 0."""

    def kernel(self, channels, length):
        w, _, B = hippo.low_rank_form(self.d_state)
        param = lambda name, init, shape: self.param(name, init, shape, self.param_dtype)

        def times_B(key, shape, dtype=jnp.float32):
            return jax.random.normal(key, (shape[0], shape[1], 1), dtype) * jnp.asarray(hippo.pairs(B), dtype)
        w = as_complex(param("w", constant(hippo.pairs(w)), (len(w), 2)))
        C = as_complex(param("C", times_B, (channels, len(w), 2)))
        return kernel(w, C, jnp.exp(param("log_dt", log_step, (channels,))), length)


def kernel(w, C, dt, length):
    """Kernel (H, length): K_l = Re sum_n C_n (e^{dt w'} - 1) / (w (e^{dt w' L} - 1)) e^{dt w l}, with w' = w; where Re w > 0, w' = -w and l - L + 1
    replaces l, so that no exponential exceeds 1.

    Args:
        w: (N/2,), complex.
        C: (H, N/2), complex.
        dt: (H,), step sizes.
    """
    real = jnp.finfo(w.dtype).dtype
    growing = w.real > 0
    step = dt.astype(real)[:, None] * w
    falling = jnp.where(growing, -step, step)                               # (H, N/2)
    q = w * jnp.expm1(falling * length)
    weights = C * jnp.expm1(falling) * q.conj() / (q.real**2 + q.imag**2 + np.asarray(EPS, real))
    forward, backward = jnp.where(growing, 0, weights), jnp.where(growing, weights, 0)
    return exponentials(forward, falling, length) + exponentials(backward, falling, length)[:, ::-1]
