"""Vim's mixer: selective scans of a token sequence in both directions, between shared projections.

Source: Zhu et al., arXiv 2401.09417.
"""
import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

import pallas_kernels
from pallas_kernels.arguments import step_size
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.adaptive_scaling import scaled
from vmamba_jax.models.layers.common import WidthField, fields_of, silu, uniform
from vmamba_jax.models.layers.selective_ssm import scan, scan_of_decays, step_bias

EXPAND = 2  # inner width over the block's
TAPS = 4    # of the causal convolution
SUFFIXES = ("", "_b")  # of the parameters' names, forward and backward


@dataclasses.dataclass(repr=False, eq=False)
class MixerFields:
    """Fields of a Vim mixer. `VimMixer`, `Block` and `Vim` inherit them and pass them on with `mixer_fields`.

    Attributes:
        d_state: N, states per channel.
        divide_out: average the two directions instead of summing them.
        layer_scale: initial value of a learned factor per output channel; None: no factor.
        stop_gradients: names of `probes.STOPPABLE` whose gradients are blocked; the forward pass stays bit-identical.
        perturbed: names of `probes.VIM_STATES` that get `perturbations`.
        scan_implementation: `implementation` of `pallas_kernels.selective_scan`.
        dtype: compute dtype (None: that of the input and parameters); the scan runs in at least float32.
        param_dtype: dtype of the parameters.
    """
    d_state: int = 16
    divide_out: bool = True
    layer_scale: float | None = None
    stop_gradients: tuple = ()
    perturbed: tuple = ()
    scan_implementation: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    def mixer_fields(self):
        """{name: value} of the fields above, for a submodule that inherits them."""
        return fields_of(MixerFields, self)


class VimMixer(MixerFields, WidthField, nn.Module):
    """Mixer of a Vim block: (b, L, C) -> (b, L, C), for any L and C. Its fields are `width`, the first, those of `MixerFields` and three more.

    The backward direction has its own convolution, projections and scan, which run from the last token to the first; no array is flipped.
    Hidden states are recorded under the names of `probes.VIM_STATES`, both directions in the order of the tokens.

    Attributes:
        out_scale: factor of the output projection's initial values; depth^-1/2 in the original.
        bidirectional: False: the forward direction alone, which is Mamba's mixer.
        ads: what is applied to each scan's output before the gate, one of `adaptive_scaling.SCALINGS`; both directions share its parameters.
    """
    out_scale: float = 1.0
    bidirectional: bool = True
    ads: str = "none"

    @nn.compact
    def __call__(self, u):
        self.check_width(u, ("batch", "length", "channels"))
        probes.check_names("stop_gradients", self.stop_gradients, probes.STOPPABLE)
        probes.check_names("perturbed", self.perturbed, probes.VIM_STATES)
        channels, N = u.shape[-1], self.d_state
        inner, rank = EXPAND * channels, math.ceil(channels / 16)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        linear = functools.partial(nn.Dense, use_bias=False, **options)
        both = lambda f, *pairs: [f(suffix, *(pair[k] for pair in pairs)) for k, suffix in enumerate(self._suffixes)]
        K = len(self._suffixes)

        x, z = jnp.split(linear(2 * inner, kernel_init=uniform(channels**-0.5), name="in_proj")(u), 2, axis=-1)    # (b, L, E)
        x, z = probes.probe_all(self, "x", [x] * K), probes.probe_all(self, "z", [z] * K)
        conv = lambda suffix, x: silu(CausalConv(reverse=bool(suffix), name=f"conv1d{suffix}", **options)(x))
        c = probes.probe_all(self, "c", both(conv, x))
        project = lambda suffix, c: linear(rank + 2 * N, kernel_init=uniform(inner**-0.5), name=f"x_proj{suffix}")(c)
        steps, B, C = zip(*(jnp.split(p, [rank, rank + N], axis=-1) for p in both(project, c)), strict=True)
        B, C = probes.probe_all(self, "B", B), probes.probe_all(self, "C", C)
        widen = lambda suffix, step: StepProjection(inner, random_bias=not suffix, name=f"dt_proj{suffix}", **options)(step)
        raw, bias = zip(*both(widen, steps), strict=True)

        s = probes.probe_all(self, "s", self._scans(c, raw, bias, B, C))
        probes.component(self, "scan", c[0], s[0])
        s = self._scaled(s)
        gated = sum(s * silu(z) for s, z in zip(s, z, strict=True))
        gated = (gated / K if self.divide_out else gated).astype(c[0].dtype)
        y = linear(channels, kernel_init=uniform(inner**-0.5 * self.out_scale), name="out_proj")(gated)
        probes.component(self, "linear", gated, y)
        if self.layer_scale is not None:
            gamma = self.param("gamma", nn.initializers.constant(self.layer_scale), (channels,), self.param_dtype)
            y = y * gamma.astype(y.dtype)
        return probes.probe(self, "y", y)

    @property
    def _suffixes(self):
        """Suffixes of the directions' parameters."""
        return SUFFIXES if self.bidirectional else SUFFIXES[:1]

    def _scaled(self, s):
        """The scans' outputs after `ads`, by one module for all directions."""
        if self.ads == "none":
            return s
        return jnp.split(scaled(self, self.ads, jnp.concatenate(s)), len(s))

    def _scans(self, u, raw, bias, B, C):
        """Both directions' scans of u with their D skips, a pair of (b, L, E); `raw` are the step sizes before bias and softplus."""
        A, D = zip(*(self._decay(suffix, u[0].shape[-1]) for suffix in self._suffixes), strict=True)
        K = len(u)
        probes.record(self, "A", lambda: jnp.stack(A))
        probes.record(self, "D", lambda: jnp.stack(D))
        delta = A_bar = (None,) * K
        if probes.observed(self, "delta") or probes.observed(self, "A_bar"):
            wide = jnp.promote_types(raw[0].dtype, jnp.float32)
            delta = probes.probe_all(self, "delta", [step_size(raw[k].astype(wide), bias[k], True) for k in range(K)])
            A_bar = probes.probe_all(self, "A_bar", [jnp.exp(delta[k][..., None] * A[k]) for k in range(K)])
        return [self._scan(u[k], raw[k], bias[k], delta[k], A_bar[k], A[k], B[k], C[k], D[k], reverse=k == 1) for k in range(K)]

    def _decay(self, suffix, inner):
        """A = -exp(A_log) (E, N) and the skip D (E,) of one direction."""
        log_range = lambda key, shape, dtype: jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype)), shape)
        logs = self.param(f"A{suffix}_log", log_range, (inner, self.d_state), self.param_dtype)
        D = self.param(f"D{suffix}", nn.initializers.ones, (inner,), self.param_dtype)
        return -jnp.exp(logs.astype(jnp.promote_types(logs.dtype, jnp.float32))), D

    def _scan(self, u, raw, bias, delta, A_bar, A, B, C, D, *, reverse):
        options = dict(reverse=reverse, implementation=self.scan_implementation)
        split = {"A_bar", "B_bar_delta"} & set(self.stop_gradients)
        if "A_bar" in self.perturbed or ("delta" in self.perturbed and split):
            delta = jax.lax.stop_gradient(delta) if "B_bar_delta" in split else delta
            return scan_of_decays(u, delta, A_bar, B, C, D, **options)
        if "delta" in self.perturbed:
            return pallas_kernels.selective_scan(u, delta, A, B[:, :, None], C[:, :, None], D, delta_softplus=False, **options)
        return scan(u, raw, A, B, C, D, bias, stop_gradients=self.stop_gradients, **options)


class CausalConv(nn.Module):
    """Depth-wise convolution of (b, L, E) over each token and the TAPS - 1 tokens before it (reverse: after it); the last tap is the token's own."""
    reverse: bool = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", uniform(TAPS**-0.5), (TAPS, 1, x.shape[-1]), self.param_dtype)
        bias = self.param("bias", uniform(TAPS**-0.5), (x.shape[-1],), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return causal_conv(x, kernel[:, 0], self.reverse) + bias


@functools.partial(jax.jit, static_argnames="reverse")  # a call of this name, by which `program_cost` recognizes the convolution
def causal_conv(x, kernel, reverse):
    """y_t = sum_i kernel[i] x_{t - (k - 1 - i)}, with zeros outside the sequence, as k shifted multiplies; reverse: x_{t + (k - 1 - i)}.

    Args:
        x: (b, L, E).
        kernel: (k, E).
        reverse: read the tokens after t.
    """
    length, taps = x.shape[1], len(kernel)
    kernel = kernel[::-1] if reverse else kernel
    padded = jnp.pad(x, ((0, 0), (0, taps - 1) if reverse else (taps - 1, 0), (0, 0)))
    return functools.reduce(jnp.add, (padded[:, i:i + length] * kernel[i] for i in range(taps)))


class StepProjection(nn.Module):
    """Low-rank step sizes (b, L, R) -> (b, L, features) before the bias, and the bias, which the scan adds before its softplus.

    Attributes:
        features: E.
        random_bias: softplus(bias) starts log-uniform in [0.001, 0.1]; False: the bias starts at 0, because the original's general rule for
            linear layers resets that of the backward direction.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    features: int
    random_bias: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, steps):
        rank = steps.shape[-1]
        kernel = self.param("kernel", uniform(rank**-0.5), (rank, self.features), self.param_dtype)
        bias = self.param("bias", step_bias if self.random_bias else nn.initializers.zeros, (self.features,), self.param_dtype)
        steps, kernel = nn.dtypes.promote_dtype(steps, kernel, dtype=self.dtype)
        return steps @ kernel, bias
