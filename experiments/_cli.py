"""The old name of `experiments.common.cli`, for one release."""
from vmamba_jax.core.deprecation import moved

__getattr__ = moved(__name__, "experiments.common.cli")
