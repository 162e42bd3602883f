"""Mega: attention gated by an exponential moving average, and a feed-forward network.

Source: Ma et al., arXiv 2209.10655; the released code of arXiv 2406.05532 (post-norm, softmax attention without chunks).
"""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.adaptive_scaling import scaled
from vmamba_jax.models.layers.common import LayerNorm, dense, silu
from vmamba_jax.models.sequence.convolution import bidirectional, exponentials
from vmamba_jax.models.sequence.fields import LayerFields


class Mega(LayerFields, nn.Module):
    """Mega layer with its own residual connections and norms: (b, L, C) -> (b, L, C).

    The states are x, the layer's input but for the residual connection; s, the moving average with its skip, before SiLU (b, L, C); a, the attention's output (b, L, hidden); y,
    the layer's output. `ads` is applied to s. The fields are those of `LayerFields` (`max_length` is needed) and:

    Attributes:
        hidden: width of the values.
        ffn_hidden: width of the feed-forward network; None: `hidden`.
        z_dim: width of queries and keys.
        ema_states: moving averages per channel and direction.
    """
    hidden: int = 256
    ffn_hidden: int | None = None
    z_dim: int = 64
    ema_states: int = 16

    @nn.compact
    def __call__(self, x):
        self._check(x)
        return probes.probe(self, "y", self._feed_forward(self._attend(x)))

    def _attend(self, x):
        channels, options = x.shape[-1], dict(dtype=self.dtype, param_dtype=self.param_dtype)
        read = probes.probe(self, "x", x)
        v = silu(dense(self.hidden, name="v_proj", **options)(read))
        s = probes.probe(self, "s", MovingAverage(self.ema_states, name="move", **options)(read))
        probes.component(self, "scan", read, s)
        m = silu(scaled(self, self.ads, s))
        base = dense(self.z_dim + self.hidden + 2 * channels, name="mx_proj", **options)(m)
        u, zr, hx = jnp.split(base, [channels, channels + self.z_dim + self.hidden], axis=-1)
        z, r = jnp.split(silu(zr), [self.z_dim], axis=-1)
        a = probes.probe(self, "a", self._attention(z, v))
        probes.component(self, "attention", v, a)
        h = silu(hx + dense(channels, name="h_proj", **options)(r * a))
        return LayerNorm(name="norm", **options)(x + jax.nn.sigmoid(u) * (h - x))

    def _attention(self, z, v):
        """softmax(q k^T / sqrt(z_dim) + bias) v, with q and k from one projection z (b, L, z_dim)."""
        gamma = self.param("gamma", nn.initializers.normal(0.02), (2, self.z_dim), self.param_dtype)
        beta = self.param("beta", nn.initializers.zeros, (2, self.z_dim), self.param_dtype)
        table = self.param("rel_pos_bias", nn.initializers.normal(0.02), (2 * self.max_length - 1,), self.param_dtype)
        z, gamma, beta = nn.dtypes.promote_dtype(z, gamma, beta, dtype=self.dtype)
        q, k = ((z * gamma[i] + beta[i]) for i in range(2))
        position = np.arange(z.shape[1])
        bias = table[self.max_length - 1 + position - position[:, None]]                # of key j for query i: the entry of j - i
        scores = jnp.einsum("bid,bjd->bij", q * np.asarray(self.z_dim**-0.5, q.dtype), k)
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32)) + bias
        attention = jax.nn.softmax(scores)
        probes.record(self, "attention", attention)
        return jnp.einsum("bij,bjd->bid", attention.astype(v.dtype), v)

    def _feed_forward(self, x):
        channels, options = x.shape[-1], dict(dtype=self.dtype, param_dtype=self.param_dtype)
        y = dense(channels, name="fc2", **options)(silu(dense(self.ffn_hidden or self.hidden, name="fc1", **options)(x)))
        probes.component(self, "linear", x, y)
        return LayerNorm(name="ffn_norm", **options)(x + y)

    def _check(self, x):
        self.check_layer(x)
        if self.max_length is None:
            raise ValueError("max_length=None: expected the longest sequence, for which the positions have a bias")
        for field in ("hidden", "z_dim", "ema_states"):
            checks.count(field, getattr(self, field))
        checks.count("ffn_hidden", self.ffn_hidden, optional=True)


class MovingAverage(nn.Module):
    """Damped moving averages of each channel from both sides, and a skip: (b, L, C) -> (b, L, C).

    Attributes:
        states: averages per channel and direction.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    states: int = 16
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        channels, n = x.shape[-1], self.states
        param = lambda name, init, shape: self.param(name, init, shape, self.param_dtype)
        delta, alpha = (param(name, nn.initializers.normal(0.2), (2 * channels, n)) for name in ("delta", "alpha"))
        beta = param("beta", _alternating, (2 * channels, n))
        gamma = param("gamma", nn.initializers.normal(1.0), (2 * channels, n))
        omega = param("omega", nn.initializers.normal(1.0), (channels,))
        k = ema_kernel(delta, alpha, beta, gamma, x.shape[1])
        return (bidirectional(x, k[:channels], k[channels:]) + omega * x).astype(x.dtype)


def ema_kernel(delta, alpha, beta, gamma, length):
    """Kernel (D, length): k_l = sum_n p beta gamma n^-1/2 q^l with p = sigmoid(delta), q = 1 - p sigmoid(alpha), from parameters (D, n)."""
    wide = jnp.promote_types(alpha.dtype, jnp.float32)
    delta, alpha, beta, gamma = (x.astype(wide) for x in (delta, alpha, beta, gamma))
    p = jax.nn.sigmoid(delta)
    rate = jnp.log1p(-p * jax.nn.sigmoid(alpha))
    weights = p * beta * gamma * np.asarray(alpha.shape[1]**-0.5, wide)
    return exponentials(weights, rate, length)


def _alternating(key, shape, dtype=jnp.float32):
    """1, -1, 1, ... along the last axis, with noise of standard deviation 0.02."""
    return jnp.asarray((-1.0) ** np.arange(shape[1]), dtype) + 0.02 * jax.random.normal(key, shape, dtype)
