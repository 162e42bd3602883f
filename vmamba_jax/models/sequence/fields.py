"""What the sequence layers share: their fields, PyTorch's default linear layer, initializers, complex parameters as pairs."""
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import fields_of, uniform

CONSTANTS = "constants"  # collection of arrays that are saved but not trained


@dataclasses.dataclass(repr=False, eq=False)
class LayerFields:
    """Fields of every sequence layer. The layers and `SequenceClassifier` inherit them and pass them on with `layer_fields`.

    Attributes:
        d_state: N: states per channel; half of them have parameters in S4 and DSS, whose states are conjugate pairs. S5 has C states and Mega
            `ema_states`.
        ads: what is applied to the scan's output, one of `adaptive_scaling.SCALINGS`.
        max_length: longest sequence; S4's kernel has the next power of two of steps, and Mega and the Transformer have positions for so many
            tokens. None: S4 takes that of the sequence at hand.
        stop_gradients: names of the layer's states whose gradients are blocked; the forward pass stays bit-identical.
        perturbed: names of the layer's states that get `perturbations`.
        scan_implementation: `implementation` of the scans in `pallas_kernels`.
        dtype: compute dtype (None: that of the input and parameters); scans and convolutions run in at least float32.
        param_dtype: dtype of the parameters.
    """
    d_state: int = 64
    ads: str = "none"
    max_length: int | None = None
    stop_gradients: tuple = ()
    perturbed: tuple = ()
    scan_implementation: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    STATES = probes.SEQUENCE_STATES
    STOPPABLE = probes.SEQUENCE_STATES

    def layer_fields(self):
        """{name: value} of the fields above, for a submodule that inherits them."""
        return fields_of(LayerFields, self)

    def check_layer(self, x):
        """Raise an error that names the field or the input (b, L, C) that this layer cannot serve."""
        checks.count("d_state", self.d_state)
        checks.count("max_length", self.max_length, optional=True)
        probes.check_names("stop_gradients", self.stop_gradients, self.STOPPABLE)
        probes.check_names("perturbed", self.perturbed, self.STATES)
        if x.ndim != 3 or not x.shape[1]:
            raise ValueError(f"x.shape={x.shape}: expected (batch, length, channels) with a length of at least 1")
        if self.max_length is not None and x.shape[1] > self.max_length:
            raise ValueError(f"max_length={self.max_length}: expected at least the sequence's {x.shape[1]} tokens")


def default_linear(features, fan_in, name, module):
    """PyTorch's default linear layer: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for the kernel and the bias."""
    init = uniform(fan_in**-0.5)
    return nn.Dense(features, kernel_init=init, bias_init=init, dtype=module.dtype, param_dtype=module.param_dtype, name=name)


def log_step(key, shape, dtype=jnp.float32):
    """Initializer of the log of a step size that is log-uniform in [0.001, 0.1]."""
    return jax.random.uniform(key, shape, dtype, np.log(0.001), np.log(0.1))


def constant(x):
    """Initializer with the values of x."""
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(x, dtype).reshape(shape)


def as_complex(pairs):
    """Real (..., 2) as complex (...,), in at least complex64."""
    pairs = pairs.astype(jnp.promote_types(pairs.dtype, jnp.float32))
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def as_pairs(x):
    """Complex (...,) as real (..., 2)."""
    return jnp.stack([x.real, x.imag], -1)
