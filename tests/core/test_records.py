"""Records: frozen, hashable by value, pytrees of their numbers."""
import dataclasses

import jax
import pytest

from vmamba_jax.core import records


@records.record("eps")
class Ball(records.Described):
    eps: float
    norm: str = "linf"

    def __post_init__(self):
        if not isinstance(self.eps, (int, float, jax.Array)):
            raise TypeError(self.eps)

    settings = property(lambda self: {"name": "ball"} | dataclasses.asdict(self))


def test_leaves_and_static_fields():
    assert jax.tree.leaves(Ball(0.5, "l2")) == [0.5] and Ball(0.5) == Ball(0.5) and hash(Ball(0.5)) == hash(Ball(0.5))
    assert jax.tree.map(lambda x: x + 1, Ball(0.5, "l2")) == Ball(1.5, "l2")
    assert jax.tree.structure(Ball(0.5)) != jax.tree.structure(Ball(0.5, "l2"))
    assert repr(Ball(1 / 3)) == "ball(eps=0.333333, norm='linf')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ball(0.5).eps = 1


def test_rebuilt_without_checks():
    """JAX puts placeholders into leaves, so a record rebuilt from leaves is not checked again; `register_dataclass` would raise here."""
    assert jax.tree.map(lambda x: "placeholder", Ball(0.5)).eps == "placeholder"


def test_traced_radius_compiles_once():
    traces = []

    @jax.jit
    def double(ball):
        traces.append(ball.norm)
        return 2 * ball.eps

    assert double(Ball(0.5)) == 1 and double(Ball(0.25)) == 0.5 and traces == ["linf"]
    assert double(Ball(0.5, "l2")) == 1 and traces == ["linf", "l2"]
