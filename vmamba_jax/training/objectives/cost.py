"""What an objective costs: passes through the model for every training image of one step."""
from typing import NamedTuple


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
    """The `Cost` of an attack, from its `passes`; ValueError if their number depends on the images."""
    passes = getattr(attack, "passes", None)
    if passes is None:
        raise ValueError(f"attack={attack!r}: expected one with a constant number of passes, such as pgd or apgd(keep='highest_loss')")
    return Cost(*passes)
