"""Attackers that know the method of adaptation: through the adapted weights, and by poisoned images among a batch's."""
import jax
import jax.numpy as jnp
import optax

from vmamba_jax.core import checks


def adapted_logits(method, state, key=None):
    """images -> logits of the model after it has adapted to these images, for the attacks of `vmamba_jax.attacks`.

    Such an attack's gradients go through the update of the parameters, and an image's perturbation changes the predictions of its whole batch. Attacks
    of the unadapted model, for comparison: `vmamba_jax.logits_fn(model, state.variables)`.

    Args:
        method: of this package.
        state: before the batch.
        key: random key of drop path, the same in every call.
    """
    return lambda images: method.step(state, images, key)[1]


def poison(method, state, images, labels, count, *, eps, steps=10, step_size=None, key=None):
    """The batch with its first images changed within linf radius eps so that the model, adapted to the batch, misclassifies the others.

    Sign gradient ascent of the other images' mean cross-entropy, through the update of the parameters, from the images as they are; a pixel whose
    gradient is not finite stays.

    Args:
        method, state, key: as for `adapted_logits`.
        images: (b, H, W, C) in [0, 1].
        labels: (b,) classes; those of the first `count` images are not used.
        count: number of images that the attacker controls, 1 to b - 1.
        eps: radius in pixel units, >= 0.
        steps: >= 1.
        step_size: None: 2.5 eps / steps.

    Source: the threat of Wu et al. 2023, arXiv 2301.12576 (distribution-invading attack).
    """
    checks.number("eps", eps, low=0)
    checks.count("steps", steps)
    if not 1 <= checks.count("count", count) < len(images):
        raise ValueError(f"count={count}: expected 1 to {len(images) - 1} of the batch's images")
    step_size, others = 2.5 * eps / steps if step_size is None else step_size, images[count:]
    logits_fn = adapted_logits(method, state, key)

    def loss(x):
        logits = logits_fn(jnp.concatenate([x, others]))[count:]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[count:]).mean()

    low, high = jnp.clip(images[:count] - eps, 0, 1), jnp.clip(images[:count] + eps, 0, 1)

    def ascend(_, x):
        gradient = jax.grad(loss)(x)
        return jnp.clip(x + step_size * jnp.where(jnp.isfinite(gradient), jnp.sign(gradient), 0), low, high)

    return jnp.concatenate([jax.lax.fori_loop(0, steps, ascend, images[:count]), others])
