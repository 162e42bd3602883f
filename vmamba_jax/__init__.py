"""VMamba in JAX/Flax, with the attacks, adversarial training and analyses of its robustness literature.

Notation, everywhere: `B` batch, `H W` map height and width, `L = H * W` sequence length, `C` block width, `E` inner width (ssm_ratio * C),
`K` scan directions (4), `N` state size, `R` rank of the step projection, `delta` step size. Images are NHWC float32 in [0, 1], channels last;
attacks act in that pixel space, mean and std belong to the model's preprocessing.

Submodules and these functions are imported on first use, so that `import vmamba_jax.reports` loads neither JAX nor a model.
"""
import importlib
from typing import Any

from vmamba_jax.version import __version__

SUBMODULES = ("adaptation", "analysis", "attacks", "bridges", "checkpoints", "data", "evaluation", "models", "parallel", "reports", "training")
FUNCTIONS = {"classifier": "bridges", "cost": "models", "create_model": "models", "example": "checkpoints", "list_models": "models", "logits_fn": "models"}

__all__ = [*SUBMODULES, *FUNCTIONS, "__version__"]


def __getattr__(name) -> Any:
    if name in SUBMODULES:
        return importlib.import_module(f"vmamba_jax.{name}")
    if name in FUNCTIONS:
        return getattr(importlib.import_module(f"vmamba_jax.{FUNCTIONS[name]}"), name)
    raise AttributeError(f"module 'vmamba_jax' has no attribute {name!r}")
