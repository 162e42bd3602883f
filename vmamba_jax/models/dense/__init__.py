"""Models of dense tasks over the backbones of classification."""
from vmamba_jax.core import checks
from vmamba_jax.models.dense.upernet import UperNet

HEADS = {"upernet": UperNet}


def create(name, **options):
    """The model of a dense task by name, for configs.

    Args:
        name: a key of `HEADS`.
        **options: its fields; `backbone` returns four maps, as `create_model(..., features_only=True)` does.
    """
    return checks.by_name("head", name, HEADS, options)(**options)
