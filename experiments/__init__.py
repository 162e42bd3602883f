"""Runnable programs: read a config, call the package, save the results."""
from vmamba_jax.core.deprecation import renamed

__getattr__ = renamed(__name__, {"_cli": "experiments.common:cli"})
