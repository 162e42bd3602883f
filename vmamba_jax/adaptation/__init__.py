"""Test-time adaptation: a model's parameters follow a stream of unlabeled batches.

    method = adaptation.trust(model, learning_rate=1e-4)
    state = method.init(variables)
    for images in stream:
        state, logits = method.step(state, images)      # jax.jit(method.step) compiles it

`step` is a pure function. Continual adaptation passes the state on; `init(variables)` again is the reset. `stream_accuracy` measures both over
corruptions, `adapted_logits` and `poison` serve attackers that know the method.
"""
from vmamba_jax.adaptation.attacked import adapted_logits, poison
from vmamba_jax.adaptation.base import Adaptation, Method, State
from vmamba_jax.adaptation.eata import Eata, eata
from vmamba_jax.adaptation.frozen import Lame, NoAdaptation, lame, none
from vmamba_jax.adaptation.sar import Sar, sar
from vmamba_jax.adaptation.shot import Shot, shot
from vmamba_jax.adaptation.stream import stream_accuracy
from vmamba_jax.adaptation.tent import Tent, tent
from vmamba_jax.adaptation.trust import PERMUTATIONS, Trust, trust

METHODS = {"none": none, "tent": tent, "eata": eata, "sar": sar, "shot": shot, "lame": lame, "trust": trust}

__all__ = ["Adaptation", "Eata", "Lame", "METHODS", "Method", "NoAdaptation", "PERMUTATIONS", "Sar", "Shot", "State", "Tent", "Trust", "adapted_logits",
           "eata", "lame", "none", "poison", "sar", "shot", "stream_accuracy", "tent", "trust"]
