"""Mamba (S6): a selective scan between a causal convolution and a gate.

Source: Gu and Dao, arXiv 2312.00752.
"""
import flax.linen as nn

from vmamba_jax.models.layers import probes
from vmamba_jax.models.sequence.fields import LayerFields
from vmamba_jax.models.vim.mixer import VimMixer


class Mamba(LayerFields, nn.Module):
    """Mamba mixer: (b, L, C) -> (b, L, C), the forward direction of `vim.mixer.VimMixer` alone. Its fields are those of `LayerFields`.

    The states are those of `probes.VIM_STATES` with one direction on axis 1, below `mixer`; `ads` is applied to the scan's output before the gate.
    """
    STATES = probes.VIM_STATES
    STOPPABLE = probes.STOPPABLE

    @nn.compact
    def __call__(self, u):
        self.check_layer(u)
        return VimMixer(d_state=self.d_state, divide_out=False, bidirectional=False, ads=self.ads, stop_gradients=self.stop_gradients,
                        perturbed=self.perturbed, scan_implementation=self.scan_implementation, dtype=self.dtype, param_dtype=self.param_dtype,
                        name="mixer")(u)
