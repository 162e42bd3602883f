"""Training objectives: each makes a pure per-device `step(state, batch, key, *, axis_name=None) -> (state, metrics)`.

The same step runs under `jax.jit` (axis_name=None), `jax.pmap(step, axis_name=...)` and `parallel.map_step`, and makes the same update:
state and key are alike on every device, the batch is the device's slice, and gradients, metrics and model state end in `lax.pmean`.
"""
from ..checks import choice, require
from .pgd_at import pgd_at
from .standard import standard

OBJECTIVES = {"standard": standard, "pgd_at": pgd_at}

__all__ = ["OBJECTIVES", "create", "pgd_at", "standard"]


def create(name, classifier, optimizer, **options):
    """An objective by name, for configs; `options` are that function's keywords."""
    require(choice("objective name", name, OBJECTIVES))
    return OBJECTIVES[name](classifier, optimizer, **options)
