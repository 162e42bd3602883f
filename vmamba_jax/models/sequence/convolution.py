"""Convolution of long kernels by the FFT, and the layer around one: scan, Adaptive Scaling, linear."""
import flax.linen as nn
import jax.numpy as jnp

from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.adaptive_scaling import scaled
from vmamba_jax.models.sequence.fields import LayerFields, default_linear


class ConvolutionLayer(LayerFields, nn.Module):
    """Linear(ads(u * K + D u)): (b, L, C) -> (b, L, C), with the kernel K (C, L) that a subclass returns.

    The states are those of `probes.SEQUENCE_STATES`, and the kernel is recorded as `kernel`. No nonlinearity is applied, as in the released code.
    """

    @nn.compact
    def __call__(self, u):
        self.check_layer(u)
        if self.d_state % 2:
            raise ValueError(f"d_state={self.d_state}: expected an even number, because the states are conjugate pairs")
        channels = u.shape[-1]
        u = probes.probe(self, "x", u)
        D = self.param("D", nn.initializers.normal(1.0), (channels,), self.param_dtype)
        kernel = self.kernel(channels, u.shape[1])
        probes.record(self, "kernel", kernel)
        s = causal(u, kernel)
        s = probes.probe(self, "s", (s + D * u).astype(u.dtype))
        probes.component(self, "scan", u, s)
        a = probes.probe(self, "a", scaled(self, self.ads, s))
        y = probes.probe(self, "y", default_linear(channels, channels, "output_linear", self)(a))
        probes.component(self, "linear", a, y)
        return y

    def kernel(self, channels, length):
        """Convolution kernel (C, L)."""
        raise NotImplementedError


def exponentials(weights, rates, length):
    """Kernel (H, length), Re sum_n weights_n e^{rates_n l}, from (H, N) real or complex: a matrix product of about sqrt(length) columns each way.

    Args:
        weights: (H, N).
        rates: (H, N), with real parts <= 0.
    """
    inner = 1 << ((length - 1).bit_length() + 1) // 2
    real = jnp.finfo(rates.dtype).dtype
    fine = jnp.exp(rates[..., None] * jnp.arange(inner, dtype=real))
    coarse = weights[..., None] * jnp.exp(rates[..., None] * (inner * jnp.arange(-(-length // inner), dtype=real)))
    if jnp.iscomplexobj(fine):
        fine, coarse = jnp.concatenate([fine.real, -fine.imag], 1), jnp.concatenate([coarse.real, coarse.imag], 1)
    return jnp.einsum("hnb,hna->hba", coarse, fine, precision="highest").reshape(len(weights), -1)[:, :length]


def causal(u, kernel):
    """y_t = sum_{k <= t} kernel_k u_{t-k} per channel, in O(L log L).

    Args:
        u: (b, L, H), real.
        kernel: (H, L), real.

    Returns:
        (b, L, H), in at least float32.
    """
    wide = jnp.promote_types(jnp.promote_types(u.dtype, kernel.dtype), jnp.float32)
    return _by_fft(u.astype(wide), kernel.T.astype(wide))


def bidirectional(u, forward, backward):
    """y_t = sum_{k <= t} forward_k u_{t-k} + sum_{k < L - t} backward_k u_{t+k}; lag 0 counts in both. Arguments as for `causal`."""
    wide = jnp.promote_types(jnp.promote_types(u.dtype, forward.dtype), jnp.float32)
    length, forward, backward = u.shape[1], forward.T.astype(wide), backward.T.astype(wide)
    around = jnp.zeros((2 * length, u.shape[2]), wide).at[:length].set(forward).at[0].add(backward[0])
    return _by_fft(u.astype(wide), around.at[length + 1:].set(backward[:0:-1]))


def _by_fft(u, kernel):
    size = 2 * u.shape[1]
    return jnp.fft.irfft(jnp.fft.rfft(u, size, axis=1) * jnp.fft.rfft(kernel, size, axis=0), size, axis=1)[:, :u.shape[1]]
