"""Analyses of trained models: attention maps, component-wise gradients, scan trajectories, sensitivity to the image center, state correlation."""
from vmamba_jax.analysis.attention_maps import attention_fn, scan_attention
from vmamba_jax.analysis.center_sensitivity import center_sensitivity
from vmamba_jax.analysis.component_gradients import component_gradients
from vmamba_jax.analysis.scan_trajectories import trajectory_accuracy
from vmamba_jax.analysis.state_correlation import locate, ranking, templates

__all__ = ["attention_fn", "center_sensitivity", "component_gradients", "locate", "ranking", "scan_attention", "templates", "trajectory_accuracy"]
