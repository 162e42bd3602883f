"""The passes that an attack states, counted by calling it."""
import jax
import jax.numpy as jnp
import pytest

from vmamba_jax import attacks

CONSTANT = [
    attacks.fgsm(0.1), attacks.pgd(0.1, 3), attacks.pgd(0.1, 3, restarts=2), attacks.momentum_pgd(0.1, 4), attacks.masked_pgd(0.1, 3, mask=("rings", 2, 0)),
    attacks.frequency_pgd(0.1, 3, size=2), attacks.transfer_pgd(0.1, 2, scales=3), attacks.transfer_pgd(0.1, 2, neighbors=2),
    attacks.transfer_pgd(0.1, 2, scales=2, neighbors=1, random_start=True, restarts=2), attacks.eot_pgd(0.1, 2, samples=3, restarts=2),
    attacks.apgd(0.1, 4, keep="highest_loss", restarts=2), attacks.apgd(1.0, 5, "l1", keep="highest_loss", large_eps=True),
]


@pytest.mark.parametrize("attack", CONSTANT, ids=lambda attack: repr(attack)[:60])
@pytest.mark.often(6)
def test_stated_passes_are_the_counted_ones(attack):
    """Host callbacks count the runs of the forward pass and of its gradient."""
    counts = {"forward": 0, "gradient": 0}

    def count(kind, x):
        def add(_):
            counts[kind] += 1
        jax.debug.callback(add, x.sum())

    @jax.custom_vjp
    def counted(x):
        count("forward", x)
        return x

    def forward(x):
        count("forward", x)
        return x, None

    def backward(_, g):
        count("gradient", g)
        return g,
    counted.defvjp(forward, backward)
    images, labels = jax.random.uniform(jax.random.key(0), (2, 4, 4, 1)), jnp.array([0, 1])
    logits_fn = lambda x, keys=None: counted(x).reshape(2, -1)[:, :5] ** 2
    jax.jit(lambda: attack(logits_fn, images, labels, jax.random.key(1)))()
    jax.effects_barrier()
    assert attack.passes == (counts["gradient"], counts["forward"] - counts["gradient"])


def test_passes_that_depend_on_the_images():
    for attack in (attacks.apgd(0.1, 4), attacks.fab(0.1, 4), attacks.square(0.1), attacks.autoattack(0.1), attacks.patch_fool()):
        assert attack.passes is None


def test_passes_do_not_need_concrete_numbers():
    """A traced radius leaves the number of passes known."""
    seen = []
    jax.eval_shape(lambda eps: seen.append(attacks.pgd(eps, 7).passes), 0.1)
    assert seen == [attacks.Passes(7, 0)]
