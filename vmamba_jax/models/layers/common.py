"""Layers with the original programs' numbers: LayerNorm eps, exact GELU, explicit padding, PyTorch's initial distributions.

Activations and LayerNorm carry their own derivative rules: the one XLA derives for itself keeps more and runs slower. The rules are jvp rules,
so forward mode and every order of reverse mode hold.
"""
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.models.layers.convolution import Conv, depthwise_conv

LAYER_NORM_EPS = 1e-5


# ---- activations

@jax.custom_jvp
def gelu(x):
    """x Phi(x) by erf, not the tanh approximation."""
    return x * _normal_cdf(x)


def _normal_cdf(x):
    return 0.5 * (1 + jax.lax.erf(x * np.array(2**-0.5, x.dtype)))


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    density = jnp.exp(-0.5 * x * x) * np.array((2 * np.pi)**-0.5, x.dtype)
    cdf = _normal_cdf(x)
    return x * cdf, dx * (cdf + x * density)


@jax.custom_jvp
def silu(x):
    """x sigmoid(x)."""
    return x * jax.nn.sigmoid(x)


@silu.defjvp
def _silu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    s = jax.nn.sigmoid(x)
    return x * s, dx * (s * (1 + x * (1 - s)))


ACTIVATIONS = {"silu": silu, "gelu": gelu, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


def activation(name):
    """The activation of that name, or a ValueError with the known ones."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


# ---- initialisers (PyTorch's defaults, as the original models use them)

def uniform(bound):
    """U(-bound, bound)."""
    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)
    return init


def conv_kernel_init(key, shape, dtype=jnp.float32):
    """U(+-1/sqrt(fan_in)) for a (kh, kw, in / groups, out) kernel: torch.nn.Conv2d's default."""
    return uniform(np.prod(shape[:-1])**-0.5)(key, shape, dtype)


dense_init = nn.initializers.normal(0.02)  # trunc_normal(std 0.02) cut at +-2, which is 100 standard deviations


def dense(features, *, use_bias=True, dtype=None, param_dtype=jnp.float32, name=None):
    """Linear layer as the original initialises it: normal(0.02) and zero bias."""
    return nn.Dense(features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype, kernel_init=dense_init, name=name)


def conv(features, kernel_size, stride, padding, fan_in, *, dtype=None, param_dtype=jnp.float32, name=None):
    """Square convolution with symmetric explicit padding (never "SAME", which pads (0, 1) at stride 2)."""
    return Conv(features, (kernel_size, kernel_size), (stride, stride), ((padding, padding), (padding, padding)), dtype=dtype,
                param_dtype=param_dtype, kernel_init=conv_kernel_init, bias_init=uniform(fan_in**-0.5), name=name)


# ---- normalisation

@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def standardize(x, eps=LAYER_NORM_EPS):
    """(x - mean) / sqrt(var + eps) over the last axis, biased variance."""
    return _standardize(x, eps)[0]


def _standardize(x, eps):
    centred = x - x.mean(-1, keepdims=True)
    rate = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + eps)
    return centred * rate, rate


@standardize.defjvp
def _standardize_jvp(eps, primals, tangents):
    (x,), (dx,) = primals, tangents
    y, rate = _standardize(x, eps)
    return y, rate * (dx - dx.mean(-1, keepdims=True) - y * (dx * y).mean(-1, keepdims=True))


class LayerNorm(nn.Module):
    """Layer norm over the channels (last axis), computed in at least float32."""
    eps: float = LAYER_NORM_EPS
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        y = standardize(x.astype(wide), self.eps) * scale + bias
        return y.astype(self.dtype or x.dtype)


def norm(kind, *, train, dtype=None, param_dtype=jnp.float32, name=None):
    """"layer_norm" or "batch_norm" (PyTorch's eps 1e-5 and momentum 0.1) over the channels of an NHWC map."""
    if kind == "layer_norm":
        return LayerNorm(dtype=dtype, param_dtype=param_dtype, name=name)
    if kind == "batch_norm":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, param_dtype=param_dtype, name=name)
    raise ValueError(f"norm={kind!r}; expected 'layer_norm' or 'batch_norm'")


# ---- depth-wise convolution

class DepthwiseConv(nn.Module):
    """Depth-wise convolution with an odd square kernel, stride 1; starts as PyTorch's default unless `kernel_init` (bias then zero) says otherwise."""
    kernel_size: int = 3
    use_bias: bool = True
    kernel_init: Callable | None = None
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        k, channels = self.kernel_size, x.shape[-1]
        kernel = self.param("kernel", self.kernel_init or conv_kernel_init, (k, k, 1, channels), self.param_dtype)
        bias_init = nn.initializers.zeros if self.kernel_init else uniform(1 / k)
        bias = self.param("bias", bias_init, (channels,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = depthwise_conv(x, kernel)
        return y if bias is None else y + bias


# ---- regularisation and feed-forward

class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch per sample with probability `rate`, scale the others by 1 / (1 - rate) (Huang et al. 2016)."""
    rate: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        if not train or self.rate == 0:
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, (x.shape[0],) + (1,) * (x.ndim - 1))
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


class MLP(nn.Module):
    """fc1 -> activation -> fc2; gated: fc1 gives [x, z] and fc2 reads x * act(z)."""
    hidden: int
    act: str = "gelu"
    gated: bool = False
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        act, channels = activation(self.act), x.shape[-1]
        h = dense(self.hidden * (1 + self.gated), name="fc1", **options)(x)
        if self.gated:
            h, gate = jnp.split(h, 2, axis=-1)
            h = h * act(gate)
        else:
            h = act(h)
        return dense(channels, name="fc2", **options)(h)
