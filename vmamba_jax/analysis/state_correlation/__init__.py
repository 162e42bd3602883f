"""Where a state space model goes astray: which hidden states of which blocks correlate with the prediction at the wrong pixels or channels.

Source: Hu et al., "Vision Mamba Mender", NeurIPS 2024.
"""
from vmamba_jax.analysis.state_correlation.locate import locate, ranking, templates
from vmamba_jax.analysis.state_correlation.measure import Measurement, measure, true_probabilities
from vmamba_jax.analysis.state_correlation.scores import external_score, extremes, internal_score, overlap

__all__ = ["Measurement", "external_score", "extremes", "internal_score", "locate", "measure", "overlap", "ranking", "templates", "true_probabilities"]
