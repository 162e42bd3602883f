"""The old place of `checkpoints.read_torch`."""
from vmamba_jax.core.deprecation import renamed

__getattr__ = renamed(__name__, {"read_torch": "vmamba_jax.checkpoints.torch_files.read:read_torch"})
