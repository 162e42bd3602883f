"""Accuracy of a classifier over a set: clean, under attack, disturbed, and against the size of the perturbation; on all devices."""
from vmamba_jax.evaluation import disturbances
from vmamba_jax.evaluation.accuracy import accuracy, accuracy_curve, robust_accuracy
from vmamba_jax.evaluation.components import component_gradients
from vmamba_jax.evaluation.disturbed import disturbed_accuracy
from vmamba_jax.evaluation.staged import per_image
from vmamba_jax.evaluation.summary import summary, wilson_interval
from vmamba_jax.evaluation.suspicion import suspicions
from vmamba_jax.evaluation.transfer_matrix import transfer_matrix

__all__ = ["accuracy", "accuracy_curve", "component_gradients", "disturbances", "disturbed_accuracy", "per_image", "robust_accuracy", "summary",
           "suspicions", "transfer_matrix", "wilson_interval"]
