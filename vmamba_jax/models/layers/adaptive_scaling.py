"""Adaptive Scaling: a gain and a shift per channel that the token itself chooses.

Source: Qi et al., arXiv 2406.05532.
"""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.attention import Attention
from vmamba_jax.models.layers.common import uniform

ACTIVATIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}
ALIASES = {"sgmd": "sigmoid"}   # the released code's spelling
SCALINGS = ("none", *ACTIVATIONS, "attention")
"""Values of the field `ads`: what a layer applies to its scan's output."""


class AdaptiveScaling(nn.Module):
    """y = f(x W_s + b_s) * x + f(x W_b + b_b) of tokens (..., C), the same f twice.

    Attributes:
        kind: f, "relu", "sigmoid" (released as "sgmd") or "tanh".
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    kind: str = "relu"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        f = ACTIVATIONS[checks.choice("kind", ALIASES.get(self.kind, self.kind), ACTIVATIONS)]
        init = uniform(x.shape[-1]**-0.5)
        linear = functools.partial(nn.Dense, x.shape[-1], kernel_init=init, bias_init=init, dtype=self.dtype, param_dtype=self.param_dtype)
        return f(linear(name="scale")(x)) * x + f(linear(name="bias")(x))


def scaled(module, ads, x, name="ads"):
    """x (b, ..., C) after the module's scaling `ads`, one of SCALINGS, recorded as the component "ads" or "attention".

    "attention" is x + attention(x) with one head over the tokens: a mixer at the same place, our own control.
    """
    ads = checks.choice("ads", ALIASES.get(ads, ads), SCALINGS)
    if ads == "none":
        return x
    options = dict(dtype=module.dtype, param_dtype=module.param_dtype)
    if ads == "attention":
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        y = x + Attention(1, name=name, **options)(tokens).reshape(x.shape).astype(x.dtype)
    else:
        y = AdaptiveScaling(ads, name=name, **options)(x).astype(x.dtype)
    probes.component(module, "attention" if ads == "attention" else "ads", x, y)
    return y
