"""S5: one diagonal multi-input multi-output state space model, by an associative scan.

Source: Smith et al., arXiv 2208.04933; the package s5-pytorch 0.2.1, which the released code of arXiv 2406.05532 uses.
"""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import pallas_kernels
from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.adaptive_scaling import scaled
from vmamba_jax.models.sequence import hippo
from vmamba_jax.models.sequence.fields import LayerFields, as_complex, constant, log_step


class S5(LayerFields, nn.Module):
    """S5 layer: (b, L, C) -> (b, L, C), y = Re(C x) + D u. Its fields are those of `LayerFields`; `d_state` has no effect, as in the released code.

    Attributes:
        state_width: P, number of complex states; None: C.
    """
    state_width: int | None = None

    @nn.compact
    def __call__(self, u):
        self.check_layer(u)
        channels = u.shape[-1]
        states = checks.count("state_width", channels if self.state_width is None else self.state_width)
        u = probes.probe(self, "x", u)
        Lambda, B, C, D, dt = self._parameters(channels, states)
        decay, B_bar = discretized(Lambda, B, dt)
        x = pallas_kernels.linear_scan(decay[None, None], u.astype(decay.dtype) @ B_bar.T, implementation=self.scan_implementation)
        s = probes.probe(self, "s", ((x @ C.T).real + D * u).astype(u.dtype))
        probes.component(self, "scan", u, s)
        a = probes.probe(self, "a", scaled(self, self.ads, s))
        return probes.probe(self, "y", a)

    def _parameters(self, channels, states):
        """Lambda (P,), B (P, H), C (H, P), D (H,) and dt (P,)."""
        Lambda, V = hippo.normal_form(states)
        param = lambda name, init, shape: self.param(name, init, shape, self.param_dtype)
        Lambda = as_complex(param("Lambda", constant(hippo.pairs(Lambda)), (states, 2)))
        B = as_complex(param("B", _rotated(lambda x: np.conj(V.T) @ x, channels**-0.5, (states, channels)), (states, channels, 2)))
        C = as_complex(param("C", _rotated(lambda x: x @ V, states**-0.5, (channels, states)), (channels, states, 2)))
        D = param("D", nn.initializers.uniform(1.0), (channels,))
        return Lambda, B, C, D, jnp.exp(param("log_step", log_step, (states,)))


def _rotated(rotate, scale, shape):
    """Initializer of pairs: `rotate` of a real LeCun-normal matrix of this shape, in the eigenbasis of HiPPO-N."""
    def init(key, pairs, dtype=jnp.float32):
        del pairs
        x = rotate(jax.random.normal(key, shape, dtype) * np.asarray(scale, dtype))
        return jnp.stack([x.real, x.imag], -1).astype(dtype)
    return init


def discretized(Lambda, B, dt):
    """Zero-order hold: exp(Lambda dt) (P,), and (exp(Lambda dt) - 1) / Lambda B (P, H).

    Args:
        Lambda: (P,), complex.
        B: (P, H), complex.
        dt: (P,), step sizes.
    """
    step = Lambda * dt.astype(jnp.finfo(Lambda.dtype).dtype)
    return jnp.exp(step), (jnp.expm1(step) / Lambda)[:, None] * B
