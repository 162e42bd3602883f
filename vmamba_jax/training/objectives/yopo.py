"""YOPO (Zhang et al. 2019): many cheap passes through the first layer update the perturbation between a few full passes."""
import jax
import jax.numpy as jnp
import optax

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import first_layer, losses
from vmamba_jax.training.objectives.step import Cost, Outcome, Rule, make_step

DECAY = 5e-4  # of the first layer's weights, in the released programs of arXiv 2406.05532


def yopo(classifier, optimizer, *, eps, step_size, passes=5, inner_steps=3, layer=None, label_smoothing=0.0, released=False, **options):
    """A step of YOPO-m-n: m = `passes` full passes, each followed by n = `inner_steps` first-layer updates.

    A full pass at x + eta gives the weights' gradient and p = dL/dz at the first layer's output z; the updates of eta ascend
    <p, z(x + eta)> at constant p by sign steps, projected to the linf ball and the box. The start is uniform in the ball, clipped to the
    box. The weights are updated once, by the mean of the m gradients.
    The step's metrics: loss and accuracy of the last full pass, first_loss of the first, grad_norm, learning_rate.

    Args:
        classifier: as of `pgd_at`, with a Flax model that is not jitted inside.
        optimizer: optax transformation.
        eps: linf radius >= 0, in pixel units.
        step_size: of the perturbation, in pixel units.
        passes: m >= 1.
        inner_steps: n >= 1.
        layer: Flax path of the first layer, "patch_embed/conv1"; None: the first module with weights of its own that the model calls.
        label_smoothing: in [0, 1).
        released: as the programs of arXiv 2406.05532: eta starts at +eps everywhere, full passes may leave the box, the m gradients are
            summed rather than averaged (divide the learning rate by m), and the first layer's gradient also includes those of <p, z> after
            the updates and of 5e-4 / 2 of its squared weights. Those programs update twice, by two optimizers: see `in_turn`.
        **options: augment, mix, ema_decay, ema_warmup, accumulate, see `step.Step`.

    Source: Zhang et al. 2019, algorithm 1.
    """
    checks.number("eps", eps, low=0)
    checks.number("step_size", step_size, low=0)
    checks.count("passes", passes, 1)
    checks.count("inner_steps", inner_steps, 1)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    if layer is not None and not isinstance(layer, (str, tuple, list)):
        raise TypeError(f"layer={layer!r}: expected None or {first_layer.PATHS}")

    def gradient(params, state, batch, keys):
        images, labels, weight = batch["image"], batch["label"], batch.get("weight")

        def logits(params, images, model_state, key):
            return losses.train_logits(classifier, params, model_state, images, key)

        def front(params, images, model_state, key):
            return first_layer.output(path, logits, params, images, model_state, key)

        path = first_layer.parse(layer) if layer is not None else first_layer.find(logits, params, images, state.model_state, keys.dropout)
        z = jax.eval_shape(front, params, images, state.model_state, keys.dropout)

        def loss(params, shift, eta, model_state, key):
            x = images + eta
            found, model_state = first_layer.shifted(path, lambda: logits(params, x, model_state, key), shift)
            return losses.cross_entropy(found, labels, label_smoothing, weight), (model_state, losses.accuracy(found, labels, weight))

        def hamiltonian(params, eta, p, model_state, key):
            return (p * front(params, jnp.clip(images + eta, 0, 1), model_state, key)).sum()

        def full_pass(total, j):
            grads, eta, model_state = total
            key = jax.random.fold_in(keys.dropout, j)
            passed, (new, p) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, jnp.zeros(z.shape, z.dtype), eta, model_state, key)

            def ascend(_, eta):
                eta = eta + step_size * jnp.sign(jax.grad(hamiltonian, 1)(params, eta, p, model_state, key))
                return jnp.clip(images + jnp.clip(eta, -eps, eps), 0, 1) - images

            eta = jax.lax.fori_loop(0, inner_steps, ascend, eta)
            value, (after, accuracy) = passed
            if released:
                front_grads = jax.grad(lambda params: hamiltonian(params, eta, p, model_state, key) + decay(params, path))(params)
                new = jax.tree.map(jnp.add, new, front_grads)
            return (jax.tree.map(jnp.add, grads, new), eta, after), (value, accuracy)

        start = (jax.tree.map(jnp.zeros_like, params), begin(images, keys.attack), state.model_state)
        (grads, _, model_state), (values, accuracies) = jax.lax.scan(full_pass, start, jnp.arange(passes))
        grads = grads if released else jax.tree.map(lambda g: g / passes, grads)
        return grads, Outcome(model_state, {"loss": values[-1], "accuracy": accuracies[-1], "first_loss": values[0]})

    def begin(images, keys):
        if released:
            return jnp.full_like(images, eps)
        noise = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype, -eps, eps))(keys)
        return jnp.clip(images + noise, 0, 1) - images

    cost = Cost(passes, 0, passes * (inner_steps + int(released)))
    return make_step(optimizer, Rule(gradient=gradient, update_cost=cost, classes=losses.number_of_classes(classifier)), **options)


def decay(params, path):
    """DECAY / 2 times the sum of squared weights, without biases, of the module at `path`."""
    for name in path:
        params = params[name]
    return DECAY / 2 * sum((w * w).sum() for w in jax.tree.leaves(params) if w.ndim > 1)


def in_turn(first, second):
    """An optax transformation that updates twice from the same gradient: by `first`, then by `second` at the weights after `first`.

    The YOPO programs of arXiv 2406.05532 do so, with scheduled AdamW and AdamW at a constant rate.
    """
    def init(params):
        return first.init(params), second.init(params)

    def update(grads, state, params=None):
        one, first_state = first.update(grads, state[0], params)
        two, second_state = second.update(grads, state[1], None if params is None else optax.apply_updates(params, one))
        return jax.tree.map(jnp.add, one, two), (first_state, second_state)

    return optax.GradientTransformation(init, update)
