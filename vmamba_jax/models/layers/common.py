"""Layers with the original programs' numbers: LayerNorm eps, exact GELU, explicit padding, PyTorch's initial distributions.

Activations and LayerNorm have their own derivative rules: the rules that JAX derives keep more in memory and run slower. They are jvp rules, so
forward mode and every order of reverse mode work.
"""
import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers.convolution import Conv, depthwise_conv

LAYER_NORM_EPS = 1e-5


# ---- fields

def fields_of(mixin, module):
    """{name: value} of the fields that `module` inherits from the dataclass `mixin`, to pass on to a submodule that inherits them too."""
    return {field.name: getattr(module, field.name) for field in dataclasses.fields(mixin)}


@dataclasses.dataclass(repr=False, eq=False)
class WidthField:
    """First field of the layers that keep their input's channels.

    Attributes:
        width: channels of the input, which are checked; None: any.
    """
    width: int | None = None

    def check_width(self, x, axes):
        """Raise a ValueError unless `x` has the axes ("batch", ..., "channels") and, with `width` stated, so many channels."""
        if x.ndim != len(axes) or self.width not in (None, x.shape[-1]):
            expected = ", ".join((*axes[:-1], "channels" if self.width is None else str(self.width)))
            raise ValueError(f"x.shape={x.shape}: expected ({expected}) for {type(self).__name__}")


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
    """The activation function of that name.

    Raises:
        ValueError: an unknown name.
    """
    return checks.by_name("activation", name, ACTIVATIONS)


# ---- initializers (PyTorch's defaults, as the original models use them)

def uniform(bound):
    """Initializer that draws from U(-bound, bound)."""
    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)
    return init


def conv_kernel_init(key, shape, dtype=jnp.float32):
    """U(+-1/sqrt(fan_in)) for a (kh, kw, in / groups, out) kernel: torch.nn.Conv2d's default."""
    return uniform(np.prod(shape[:-1])**-0.5)(key, shape, dtype)


dense_init = nn.initializers.normal(0.02)  # trunc_normal(std 0.02) cut at +-2, which is 100 standard deviations
fan_out_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al. 2015, of ResNet's and EfficientNet's convolutions


# ---- linear layers and convolutions

def dense(features, *, use_bias=True, dtype=None, param_dtype=jnp.float32, name=None):
    """Linear layer with the original initialization: normal(0.02) weights and zero bias."""
    return nn.Dense(features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype, kernel_init=dense_init, name=name)


def conv(features, kernel_size, stride=1, padding=0, *, bias_init=None, kernel_init=conv_kernel_init, dtype=None, param_dtype=jnp.float32,
         name=None):
    """Square convolution of an NHWC map.

    Args:
        features: output channels.
        kernel_size, stride: of both sides.
        padding: zeros on every side, an int; or "SAME", TensorFlow's, which pads (0, 1) at stride 2 where PyTorch's models pad (1, 1).
        bias_init: initializer of the bias; None: no bias.
        kernel_init: initializer of the kernel.
        dtype, param_dtype, name: as for `nn.Conv`.
    """
    padding = padding if isinstance(padding, str) else ((padding, padding), (padding, padding))
    options = dict(use_bias=False) if bias_init is None else dict(bias_init=bias_init)
    return Conv(features, (kernel_size, kernel_size), (stride, stride), padding, dtype=dtype, param_dtype=param_dtype, kernel_init=kernel_init,
                name=name, **options)


def normal_conv(features, kernel_size, stride=1, padding=0, **options):
    """`conv` with the initialization of timm's ConvNeXt and MambaOut: normal(0.02) kernel, zero bias."""
    return conv(features, kernel_size, stride, padding, kernel_init=dense_init, bias_init=nn.initializers.zeros, **options)


class DepthwiseConv(nn.Module):
    """Depth-wise convolution with an odd square kernel and a padding that keeps the size at stride 1.

    Attributes:
        kernel_size: odd side of the kernel.
        use_bias: add a bias per channel.
        kernel_init: initializer of the kernel, with a bias of zeros; None: PyTorch's default for both.
        stride: of both sides.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    kernel_size: int = 3
    use_bias: bool = True
    kernel_init: Callable | None = None
    stride: int = 1
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        k, channels = self.kernel_size, x.shape[-1]
        kernel = self.param("kernel", self.kernel_init or conv_kernel_init, (k, k, 1, channels), self.param_dtype)
        bias_init = nn.initializers.zeros if self.kernel_init else uniform(1 / k)
        bias = self.param("bias", bias_init, (channels,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = depthwise_conv(x, kernel, stride=self.stride)
        return y if bias is None else y + bias


# ---- normalization

@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def standardize(x, eps=LAYER_NORM_EPS):
    """(x - mean) / sqrt(var + eps) over the last axis, biased variance."""
    return _standardize(x, eps)[0]


def _standardize(x, eps):
    centered = x - x.mean(-1, keepdims=True)
    rate = jax.lax.rsqrt((centered * centered).mean(-1, keepdims=True) + eps)
    return centered * rate, rate


@standardize.defjvp
def _standardize_jvp(eps, primals, tangents):
    (x,), (dx,) = primals, tangents
    y, rate = _standardize(x, eps)
    return y, rate * (dx - dx.mean(-1, keepdims=True) - y * (dx * y).mean(-1, keepdims=True))


class LayerNorm(nn.Module):
    """Layer norm over the channels (last axis), computed in at least float32."""
    eps: float = LAYER_NORM_EPS
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        y = standardize(x.astype(wide), self.eps) * scale + bias
        return y.astype(self.dtype or x.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) times a learned scale, over the last axis, in at least float32."""
    eps: float = 1e-5
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = wide / jnp.sqrt((wide * wide).mean(-1, keepdims=True) + self.eps) * scale
        return y.astype(self.dtype or x.dtype)


def batch_norm(train, *, eps=1e-5, momentum=0.9, zero_scale=False, dtype=None, param_dtype=jnp.float32, name=None):
    """Batch norm over the channels of an NHWC map.

    Args:
        train: use the batch's statistics and update the running ones.
        eps, momentum: PyTorch's defaults (its momentum 0.1 is Flax's 0.9).
        zero_scale: start the scale at 0, not 1.
        dtype, param_dtype, name: as for `nn.BatchNorm`.
    """
    return nn.BatchNorm(use_running_average=not train, momentum=momentum, epsilon=eps, dtype=dtype, param_dtype=param_dtype, name=name,
                        scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones)


def norm(kind, *, train, dtype=None, param_dtype=jnp.float32, name=None):
    """"layer_norm" or "batch_norm" over the channels of an NHWC map."""
    if kind == "layer_norm":
        return LayerNorm(dtype=dtype, param_dtype=param_dtype, name=name)
    if kind == "batch_norm":
        return batch_norm(train, dtype=dtype, param_dtype=param_dtype, name=name)
    raise ValueError(f"norm={kind!r}: expected 'layer_norm' or 'batch_norm'")


# ---- regularization and feed-forward

class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch per sample with probability `rate` and scales the others by 1 / (1 - rate).

    Source: Huang et al. 2016, arXiv 1603.09382.
    """
    rate: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        if not train or self.rate == 0:
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, (x.shape[0],) + (1,) * (x.ndim - 1))
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al., arXiv 2103.17239)."""
    initial: float
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        gamma = self.param("gamma", nn.initializers.constant(self.initial), (x.shape[-1],), self.param_dtype)
        x, gamma = nn.dtypes.promote_dtype(x, gamma, dtype=self.dtype)
        return x * gamma


class MLP(nn.Module):
    """Two linear layers with an activation between them: fc2(act(fc1(x))).

    Attributes:
        hidden: channels between the layers.
        act: name of the activation.
        gated: fc1 returns [h, z] and fc2 reads h * act(z).
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    hidden: int
    act: str = "gelu"
    gated: bool = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

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
