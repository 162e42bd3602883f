"""VMamba in JAX/Flax, with the attacks, adversarial training and analyses of its robustness literature.

Notation, everywhere: `B` batch, `H W` map height and width, `L = H * W` sequence length, `C` block width, `E` inner width (ssm_ratio * C),
`K` scan directions (4), `N` state size, `R` rank of the step projection, `delta` step size. Images are NHWC float32 in [0, 1], channels last;
attacks act in that pixel space, mean and std belong to the model's preprocessing.

Rooms, imported on first use: `attacks`, `data`, `parallel`, `reports`, `models`, `training`, `evaluation`, `checkpoints`.
"""
import importlib

from vmamba_jax.models import create_model, list_models, logits_fn
from vmamba_jax.version import __version__

ROOMS = ("attacks", "checkpoints", "data", "evaluation", "models", "parallel", "reports", "training")

__all__ = [*ROOMS, "__version__", "create_model", "list_models", "logits_fn"]


def __getattr__(name):
    if name in ROOMS:
        return importlib.import_module(f"vmamba_jax.{name}")
    raise AttributeError(f"module 'vmamba_jax' has no attribute {name!r}")
