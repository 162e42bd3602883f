"""Test-time adaptation: a model's parameters follow a stream of unlabeled batches.

    method = adaptation.trust(model, learning_rate=1e-4)
    state = method.init(variables)
    for images in stream:
        state, logits = method.step(state, images)      # jax.jit(method.step) compiles it

`step` is a pure function. Continual adaptation passes the state on; `init(variables)` again is the reset.
"""
from vmamba_jax.adaptation.base import Adaptation, State
from vmamba_jax.adaptation.tent import Tent, tent
from vmamba_jax.adaptation.trust import PERMUTATIONS, Trust, trust

__all__ = ["Adaptation", "PERMUTATIONS", "State", "Tent", "Trust", "tent", "trust"]
