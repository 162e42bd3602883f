"""What an objective costs: passes through the model for every training image of one step."""
from typing import NamedTuple

from vmamba_jax import attacks
from vmamba_jax.training.objectives.released_pgd import ReleasedPGD


class Cost(NamedTuple):
    """Passes per image and step. forward_backward: a forward pass and its gradient; forward: one without gradient; first_layer: a pass
    through the first layer alone and its gradient."""
    forward_backward: float = 0
    forward: float = 0
    first_layer: float = 0

    def plus(self, other):
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, n):
        return Cost(*(n * a for a in self))


def attack_cost(attack):
    """The `Cost` of FGSM, PGD or the APGD that keeps the highest loss; ValueError for attacks whose passes depend on what they find."""
    if isinstance(attack, attacks.FGSM):
        return Cost(1)
    if isinstance(attack, (attacks.PGD, attacks.MomentumPGD, ReleasedPGD)):
        return Cost(attack.steps * attack.restarts, attack.restarts if attack.restarts > 1 else 0)
    if isinstance(attack, attacks.APGD) and attack.keep == "highest_loss":
        return Cost((attack.steps + 1) * attack.restarts)
    raise ValueError(f"the cost of {attack!r} is not a constant; known are fgsm, pgd, momentum_pgd and apgd(keep='highest_loss')")
