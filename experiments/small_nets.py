"""Two plain networks for digits, trained adversarially in seconds: classifiers for comparisons of attacks, which need many models and few of their flops."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vmamba_jax import attacks
from vmamba_jax.attacks import losses


class Perceptron(nn.Module):
    """(b, 8, 8, 1) images -> (b, 10) logits: one hidden layer of 128 units."""
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(10)(nn.relu(nn.Dense(128)(2 * x.reshape(len(x), -1) - 1)))


class DeepPerceptron(nn.Module):
    """(b, 8, 8, 1) images -> (b, 10) logits: four hidden layers of 48 units, with SiLU."""
    @nn.compact
    def __call__(self, x, train=False):
        x = 2 * x.reshape(len(x), -1) - 1
        for _ in range(4):
            x = nn.silu(nn.Dense(48)(x))
        return nn.Dense(10)(x)


NETS = {"perceptron": Perceptron(), "deep_perceptron": DeepPerceptron()}  # one object each, whose `apply` is then one function to jit


def train(net, images, labels, key, *, eps, epochs, batch_size=64, steps=5, learning_rate=3e-3):
    """Variables of a network after adversarial training (Madry et al. 2018), one compiled loop.

    Args:
        net: of `NETS`.
        images, labels: (n, 8, 8, 1) in [0, 1] and (n,).
        key: random key: of the initialization, the order of the images and the attack's starts.
        eps, steps: linf radius and steps of PGD, of 2.5 eps / steps each; the radius rises from 0 over the first third.
        epochs, batch_size, learning_rate: of Adam, whose rate falls to 0 by a cosine.
    """
    updates = epochs * (len(labels) // batch_size)
    adam = optax.adam(optax.cosine_decay_schedule(learning_rate, updates))

    @jax.jit
    def run(images, labels, key):
        variables = net.init(key, images[:1])

        def update(state, i):
            variables, moments = state
            now = jax.random.fold_in(key, i)
            chosen = jax.random.choice(now, len(labels), (batch_size,), replace=False)
            x, y, radius = images[chosen], labels[chosen], eps * jnp.minimum(1, 3 * i / updates)
            attack = attacks.pgd(radius, steps, 2.5 * radius / steps)
            x = attack(lambda x: net.apply(variables, x), x, y, now)
            gradient = jax.grad(lambda variables: losses.cross_entropy(net.apply(variables, x), y).mean())(variables)
            change, moments = adam.update(gradient, moments)
            return (optax.apply_updates(variables, change), moments), None
        return jax.lax.scan(update, (variables, adam.init(variables)), jnp.arange(updates))[0][0]
    return run(images, labels, key)
