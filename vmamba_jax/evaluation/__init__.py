"""Evaluation of classifiers over a set, on all devices: clean, attacked, corrupted, disturbed and shifted; transfer and calibration."""
from vmamba_jax.core.deprecation import renamed
from vmamba_jax.core.progress import ProgressBar
from vmamba_jax.core.statistics import summary, wilson_interval
from vmamba_jax.evaluation import corruptions, dense, detection, detectors, disturbances, segmentation, shifts, smoothing, views
from vmamba_jax.evaluation.accuracy import accuracy, accuracy_curve, robust_accuracy
from vmamba_jax.evaluation.calibration import calibration_error
from vmamba_jax.evaluation.certify import certified_accuracy, certify
from vmamba_jax.evaluation.corruptions.accuracy import corruption_accuracy, corruption_errors
from vmamba_jax.evaluation.disturbances.accuracy import disturbed_accuracy
from vmamba_jax.evaluation.disturbances.bit_flips import bit_flip_accuracy
from vmamba_jax.evaluation.gradient_masking import gradient_masking_signs
from vmamba_jax.evaluation.interval_accuracy import disagreements, interval_accuracy, looseness
from vmamba_jax.evaluation.robustbench import robustbench_record
from vmamba_jax.evaluation.shifts import over_classes
from vmamba_jax.evaluation.staged import per_image
from vmamba_jax.evaluation.transfer_matrix import transfer_matrix

__all__ = ["ProgressBar", "accuracy", "accuracy_curve", "bit_flip_accuracy", "calibration_error", "certified_accuracy", "certify", "corruption_accuracy",
           "corruption_errors", "corruptions", "dense", "detection", "detectors", "disagreements", "disturbances", "disturbed_accuracy", "gradient_masking_signs",
           "interval_accuracy", "looseness", "over_classes", "per_image", "robust_accuracy", "robustbench_record", "segmentation", "shifts",
           "smoothing", "summary", "transfer_matrix", "views",
           "wilson_interval"]

__getattr__ = renamed(__name__, {
    "centre_sensitivity": "vmamba_jax.analysis:center_sensitivity",
    "component_gradients": "vmamba_jax.analysis:component_gradients",
    "suspicions": "vmamba_jax.evaluation:gradient_masking_signs",
    "trajectory_accuracy": "vmamba_jax.analysis:trajectory_accuracy",
})
