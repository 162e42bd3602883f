"""Analyses of trained models.

Receptive fields, attention of scans and transformers, statistics of hidden states, component-wise gradients, scan trajectories, sensitivity to the
image center, error propagation, state correlation.
"""
from vmamba_jax.analysis.attention_maps import attention_fn, scan_attention
from vmamba_jax.analysis.attention_matrices import Attention, attention_matrix, attention_rollout
from vmamba_jax.analysis.center_sensitivity import center_sensitivity
from vmamba_jax.analysis.component_gradients import component_gradients
from vmamba_jax.analysis.error_bounds import layer_kernels, searched_error, worst_case_error, worst_case_perturbation
from vmamba_jax.analysis.error_propagation import change_rate, change_rates, feature_errors, sequence_errors
from vmamba_jax.analysis.receptive_field import contribution, displayed, receptive_field
from vmamba_jax.analysis.scan_trajectories import trajectory_accuracy
from vmamba_jax.analysis.selective_bounds import SelectiveScan, bound_looseness, error_growth, selective_bound
from vmamba_jax.analysis.state_correlation import locate, ranking, templates
from vmamba_jax.analysis.state_statistics import has_scans, state_statistics

__all__ = ["Attention", "SelectiveScan", "attention_fn", "attention_matrix", "attention_rollout", "bound_looseness", "center_sensitivity",
           "change_rate", "change_rates", "component_gradients", "contribution", "displayed", "error_growth", "feature_errors", "layer_kernels",
           "has_scans", "locate", "ranking", "receptive_field", "scan_attention", "searched_error", "selective_bound", "sequence_errors", "state_statistics",
           "templates", "trajectory_accuracy", "worst_case_error", "worst_case_perturbation"]
