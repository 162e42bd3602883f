"""Deep state space models as classifiers of pixel sequences: S4, DSS, S5, Mega, Mamba, and a Transformer as control, in one wrapper.

Source: Qi et al., arXiv 2406.05532.
"""
from vmamba_jax.models.layers.adaptive_scaling import AdaptiveScaling
from vmamba_jax.models.sequence.classifier import LAYERS, SequenceClassifier
from vmamba_jax.models.sequence.dss import DSS
from vmamba_jax.models.sequence.mamba import Mamba
from vmamba_jax.models.sequence.mega import Mega
from vmamba_jax.models.sequence.s4 import S4
from vmamba_jax.models.sequence.s5 import S5
from vmamba_jax.models.sequence.transformer import TransformerLayer

__all__ = ["DSS", "LAYERS", "S4", "S5", "AdaptiveScaling", "Mamba", "Mega", "SequenceClassifier", "TransformerLayer"]
