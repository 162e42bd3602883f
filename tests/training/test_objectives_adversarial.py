"""The adversarial objectives: one update under every mapping and split, their costs in model calls, and each against a plain loop."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.adversarial_steps import KEY, OPTIONS, PGD, PLAIN, make, sgd, start
from tests.helpers.toy_training import CLASSES, SHAPE, Classifier, Net, batch, close, pmapped, sharded, vmapped
from vmamba_jax import attacks, training
from vmamba_jax.training import objectives

HALF = training.schedules.ramp(4, start=0.5)
COSTS = {"trades": (4, 2, 0), "mart": (4, 0, 0), "free": (2, 0, 0), "fast": (2, 0, 0), "yopo": (2, 0, 6), "awp": (4, 0, 0), "singh": (4, 0, 0)}


class Counted(Classifier):
    """Counts images that enter, and that leave with and without a gradient."""
    tally = {"enter": 0, "forward": 0, "forward_backward": 0}

    def __call__(self, variables, images, **options):
        out = super().__call__(variables, counting("enter", "enter", None)(images), **options)
        count = counting("forward", "forward", "forward_backward")
        return (count(out[0]), out[1]) if isinstance(out, tuple) else count(out)


@functools.cache
def counting(primal, forward, backward):
    def add(name, n, sign=1):
        jax.debug.callback(lambda: Counted.tally.update({name: Counted.tally[name] + sign * n}))

    @jax.custom_vjp
    def identity(x):
        add(primal, len(x))
        return x

    def fwd(x):
        add(forward, len(x))
        return x, None

    def bwd(_, g):
        if backward:
            add(backward, len(g)), add(forward, len(g), -1)
        return (g,)

    identity.defvjp(fwd, bwd)
    return identity


@functools.cache
def one_device(name):
    """(step, compiled step that counts, initial state, result of one step on batch(), its cost)."""
    step, state = make(name, Counted())
    run = jax.jit(step)
    jax.effects_barrier()
    before = dict(Counted.tally)
    if "watch_every" in OPTIONS[name]:  # a step that measures nothing
        state = state.replace(step=state.step + 1)
    result = jax.block_until_ready(run(state, batch(), KEY))
    jax.effects_barrier()
    return step, run, state, result, {key: (n - before[key]) / 16 for key, n in Counted.tally.items()}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ("trades", "free", "awp") else pytest.mark.slow) for name in OPTIONS])
@pytest.mark.often(1)
def test_same_update_on_eight_devices_and_in_microbatches(name):
    _, _, state, expected, _ = one_device(name)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), *jax.device_get((state.params, expected[0].params)))
    assert all(0.0005 < x < 1 for x in jax.tree.leaves(moved))
    step, _ = make(name)
    for run in (pmapped, sharded) if name in ("free", "trades") else (sharded,):
        close(run(step, state, batch(), KEY), expected)
    split, _ = make(name, accumulate=2)
    close(jax.jit(split)(state, batch(), KEY), expected)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.often(4)
def test_cost_counts_model_calls(name):
    *_, seen = one_device(name)
    options = {key: x for key, x in OPTIONS[name].items() if not key.startswith("watch")}
    cost = objectives.cost(name, **options)
    assert cost == COSTS[name]
    assert seen["forward_backward"] == cost.forward_backward
    assert seen["forward"] == cost.forward
    assert seen["enter"] - seen["forward"] - seen["forward_backward"] == cost.first_layer


def test_costs_of_the_published_settings():
    """Forward-backward passes (forward passes, first-layer passes) per image and step of the papers' settings."""
    cost, pgd10 = objectives.cost, attacks.pgd(0.031, 10, 0.007)
    assert cost("standard") == (1, 0, 0)
    assert cost("pgd_at", attack=attacks.pgd(8 / 255, 7, 2 / 255)) == (8, 0, 0)
    assert cost("trades") == (12, 10, 0)
    assert cost("trades", recompute_targets=False) == (12, 1, 0)
    assert cost("mart") == (12, 0, 0)
    assert cost("free", eps=4 / 255, replays=4) == (4, 0, 0)  # and as many updates: 1 for each
    assert cost("yopo", eps=8 / 255, step_size=2 / 255, passes=5, inner_steps=3) == (5, 0, 15)
    assert cost("fast", eps=8 / 255) == (2, 0, 0)
    assert cost("fast", eps=8 / 255, watch_every=10, watch_stride=4, watch_steps=10) == pytest.approx((2.25, 0.05, 0))
    assert cost("awp", attack=pgd10) == (12, 0, 0) and cost("pgd_at", attack=pgd10) == (11, 0, 0)
    assert cost("awp", objective="trades") == (14, 10, 0)
    assert cost("singh") == (4, 0, 0) and cost("light", eps_schedule=lambda t: 1.0) == (2, 0, 0) and cost("ares") == (4, 0, 0)
    with pytest.raises(ValueError, match="expected one with a constant number of passes"):
        cost("pgd_at", attack=attacks.square(0.1))
    assert cost("pgd_at", attack=attacks.transfer_pgd(0.1, 3, scales=5)) == (16, 0, 0)  # five gradients per step


@pytest.mark.parametrize("name", OPTIONS)
def test_learns(name):
    _, run, state, _, _ = one_device(name)
    losses = []
    for t in range(60):
        state, metrics = run(state, batch(t), jax.random.fold_in(KEY, t))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:2])
    assert metrics["accuracy"] > 0.7


@pytest.mark.parametrize("name", ["trades", "mart", "yopo", "free"])
def test_soft_labels_count_as_their_one_hot(name):
    _, _, state, expected, _ = one_device(name)
    step, _ = make(name)
    soft = {"image": batch()["image"], "label": np.eye(CLASSES, dtype=np.float32)[batch()["label"]]}
    close(jax.jit(step)(state, soft, KEY), expected)


@pytest.mark.parametrize("name", OPTIONS)
def test_bfloat16_logits_are_evaluated_in_float32(name):
    class Short(Classifier):
        def __call__(self, *args, **options):
            return jax.tree.map(lambda x: x.astype(jnp.bfloat16), super().__call__(*args, **options))

    step, state = make(name, Short())
    after, metrics = jax.eval_shape(step, state, batch(), KEY)
    assert {x.dtype for x in metrics.values()} == {jnp.dtype("float32")}
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)


def logits_of(params, images):
    return Classifier()({"params": params}, images)


def mean_ce(params, images, labels):
    return -jax.nn.log_softmax(logits_of(params, images))[jnp.arange(len(labels)), labels].mean()


def test_free_against_a_loop():
    """Two batches of two replays; the second batch, half as large, uses the first rows of the perturbation."""
    step, run, state, _, _ = one_device("free")
    params, noise, eps, size = state.params, np.array(state.carry), 0.1, 0.06
    grad = jax.jit(jax.grad(lambda params, d, x, y: mean_ce(params, jnp.clip(x + d, 0, 1), y), (0, 1)))
    small, now = {name: x[:8] for name, x in batch(1).items()}, state
    for t, data in enumerate((batch(0), small)):
        n = len(data["label"])
        for _ in range(2):
            g, d = grad(params, noise[:n], data["image"], data["label"])
            params = jax.tree.map(lambda w, g: w - 0.1 * g, params, g)
            noise[:n] = np.clip(noise[:n] + size * np.sign(d), -eps, eps)
        now, _ = (run if n == 16 else jax.jit(step))(now, data, KEY)
        close(now.params, params)
        np.testing.assert_allclose(now.carry, noise, atol=1e-6)
        assert int(now.step) == t + 1


def test_yopo_against_a_loop():
    step, _, state, (after, metrics), _ = one_device("yopo")
    data, (eps, size) = batch(), (0.1, 0.05)
    x, y = data["image"], data["label"]
    first = lambda params, x: (x - 0.5).reshape(len(x), -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]

    def rest(params, z):
        """The network after its first layer, in closed form."""
        norm = params["LayerNorm_0"]
        z = (z - z.mean(-1, keepdims=True)) / jnp.sqrt(z.var(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]
        z = jax.nn.gelu(z) @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
        return -jax.nn.log_softmax(z)[jnp.arange(16), y].mean()

    keys = objectives.losses.step_keys(KEY, 16).attack
    eta = jnp.stack([jax.random.uniform(key, SHAPE, minval=-eps, maxval=eps) for key in keys])
    eta, total = jnp.clip(x + eta, 0, 1) - x, jax.tree.map(jnp.zeros_like, state.params)
    grad, adjoint = jax.jit(jax.grad(mean_ce)), jax.jit(jax.grad(rest, 1))
    ascent = jax.jit(jax.grad(lambda eta, p: (p * first(state.params, x + eta)).sum()))
    for _ in range(2):
        total = jax.tree.map(jnp.add, total, grad(state.params, x + eta, y))
        p = adjoint(state.params, first(state.params, x + eta))
        for _ in range(3):
            eta = jnp.clip(x + jnp.clip(eta + size * jnp.sign(ascent(eta, p)), -eps, eps), 0, 1) - x
    close(after.params, jax.tree.map(lambda w, g: w - 0.1 * g / 2, state.params, total), atol=1e-5)
    assert metrics["loss"] > metrics["first_loss"]


def test_released_yopo_in_closed_form():
    """One full pass and an inner step of size 0: eta stays at +eps; the first layer gets a gradient of its own."""
    step, state = make("yopo", passes=1, inner_steps=1, step_size=0.0, released=True)
    first = {**state.params["Dense_0"], "bias": jnp.linspace(-2, 2, 16)}  # not 0, as biases must not decay
    state = state.replace(params={**state.params, "Dense_0": first})
    after, _ = jax.jit(step)(state, batch(), KEY)
    x, y = batch()["image"], batch()["label"]
    grads = jax.device_get(jax.jit(jax.grad(mean_ce))(state.params, x + 0.1, y))
    clipped = np.clip(x + 0.1, 0, 1)
    # p, as 16 inputs of 16 pixels are independent
    z_grad = np.linalg.lstsq((x + 0.1 - 0.5).reshape(16, -1).T, grads["Dense_0"]["kernel"], rcond=None)[0]
    kernel = state.params["Dense_0"]["kernel"]
    grads["Dense_0"] = {"kernel": grads["Dense_0"]["kernel"] + (clipped - 0.5).reshape(16, -1).T @ z_grad + 5e-4 * kernel,
                        "bias": grads["Dense_0"]["bias"] + z_grad.sum(0)}
    close(after.params, jax.tree.map(lambda w, g: w - 0.1 * g, state.params, grads), atol=1e-5)


def test_optimizers_in_turn():
    first, second = training.optimizer.create(learning_rate=0.1), training.optimizer.create(learning_rate=0.01, weight_decay=0.5)
    both = objectives.in_turn(first, second)
    w, g = {"w": jnp.array([[1.0, -2.0]])}, {"w": jnp.array([[0.5, 0.25]])}
    update, _ = both.update(g, both.init(w), w)
    one, _ = first.update(g, first.init(w), w)
    there = jax.tree.map(jnp.add, w, one)
    two, _ = second.update(g, second.init(w), there)
    close(update, jax.tree.map(jnp.add, one, two))


def test_weight_perturbation_against_its_formula():
    step = objectives.perturb_weights(objectives.standard(Classifier(), sgd()), gamma=0.05, after=1)
    state, (x, y) = start(), (batch()["image"], batch()["label"])
    grad = jax.jit(jax.grad(mean_ce))
    run = jax.jit(step)
    close(run(state, batch(), KEY)[0].params, jax.tree.map(lambda w, g: w - 0.1 * g, state.params, grad(state.params, x, y)))
    state = state.replace(step=state.step + 1)
    there = jax.tree.map(lambda w, g: w + 0.05 * jnp.linalg.norm(w) / jnp.linalg.norm(g) * g if w.ndim > 1 else w, state.params,
                         grad(state.params, x, y))
    close(run(state, batch(), KEY)[0].params, jax.tree.map(lambda w, g: w - 0.1 * g, state.params, grad(there, x, y)))


def test_watch_measures_every_second_step():
    _, run, state, _, _ = one_device("fast")
    state, seen = state.replace(step=state.step - 1), []
    for t in range(4):
        before, (state, metrics) = state, run(state, batch(t), jax.random.fold_in(KEY, t))
        seen.append([float(metrics[name]) for name in ("fgsm_accuracy", "pgd_accuracy", "overfitting")])
        if t == 2:
            keys = objectives.losses.step_keys(jax.random.fold_in(KEY, t), 16).attack[::2]
            x, y = batch(t)["image"][::2], batch(t)["label"][::2]
            logits_fn = jax.tree_util.Partial(Classifier(), before.variables())
            found = [jax.jit(attacks.pgd(0.1, n, size))(logits_fn, x, y, keys) for n, size in ((1, 0.125), (3, 0.025))]
            weak, strong = ((logits_fn(a).argmax(-1) == y).mean() for a in found)
    assert seen[0] == seen[1] and seen[2] == seen[3] != seen[0]
    np.testing.assert_allclose(seen[2], [weak, strong, weak - strong], atol=1e-6)


@pytest.mark.parametrize("statistics", ["shared", "separate"])
def test_batch_statistics_of_the_two_passes(statistics):
    """The attack's passes and, if separate, the clean pass do not update the statistics that evaluation uses."""
    classifier = Classifier(Net("batch", dropout=0.0))
    step, state = make("trades", classifier, statistics=statistics, attack_mode="train")
    data = batch()
    after, _ = jax.jit(step)(state, data, KEY)
    seen, _ = jax.jit(step.rule.prepare)(state, data, objectives.losses.step_keys(KEY, 16))
    record = jax.jit(lambda variables, images: classifier(variables, images, train=True, mutable=["batch_stats"])[1])
    clean = record(state.variables(), data["image"])
    begun = clean if statistics == "shared" else {name: state.variables()[name] for name in ("batch_stats",)}
    close(after.model_state, dict(record({"params": state.params, **begun}, seen["adversarial"])))
    if statistics == "separate":
        close(objectives.clean_variables(after), {"params": after.params, **clean})
    else:
        with pytest.raises(ValueError, match="state.carry=None: expected clean statistics"):
            objectives.clean_variables(after)


def test_same_separate_statistics_and_dropout_under_mapping():
    step, state = make("trades", Classifier(Net("batch", dropout=0.5)), statistics="separate")
    close(sharded(step, state, batch(), KEY), vmapped(step, state, batch(), KEY), atol=1e-5)


def test_recipes_scale_what_their_programs_scale():
    ramp = training.schedules.ramp(4)
    step = objectives.light(Classifier(), sgd(), eps=0.1, eps_schedule=ramp)
    state = start().replace(step=jnp.int32(1))
    seen, metrics = step.rule.prepare(state, batch(), objectives.losses.step_keys(KEY, 16))
    change = np.abs(seen["image"] - batch()["image"])
    inside = (batch()["image"] > 0.03) & (batch()["image"] < 0.97)
    np.testing.assert_allclose(change[inside], 0.025, atol=1e-6)  # a full step of 0.15 from any start ends in a corner of the ball
    assert metrics["eps_scale"] == 0.25
    half = objectives.inner_attack.scale_radius(PGD, 0.5, ("step_size",))
    assert (half.eps, half.step_size) == (0.1, 0.03)


@pytest.mark.parametrize("name, options, same", [
    ("ares", {"eps_schedule": HALF}, {"attack": attacks.pgd(0.1, steps=3, step_size=0.2 / 3), "eps_schedule": HALF, "scheduled": ("step_size",)}),
    ("fast", {}, {"attack": attacks.pgd(0.1, steps=1, step_size=0.125), "attack_mode": "train"}),
])
def test_pgd_at_with_the_settings_of(name, options, same):
    classifier = Classifier(Net("batch"))
    steps = (objectives.create(name, classifier, sgd(), eps=0.1, **options), objectives.pgd_at(classifier, sgd(), **same))
    close(*(jax.jit(step)(start(classifier), batch(), KEY) for step in steps))


def test_singh_is_pgd_at_with_apgd():
    _, _, state, expected, _ = one_device("singh")
    attack = attacks.apgd(0.1, steps=2, random_start=False, keep="highest_loss")
    close(jax.jit(objectives.pgd_at(PLAIN, sgd(), attack=attack, label_smoothing=0.1))(state, batch(), KEY), expected)


def test_attacks_of_fast(monkeypatch):
    """The paper's step size of 1.25 eps, and the monitor's of eps / 4."""
    made, pgd = [], attacks.pgd
    monkeypatch.setattr(attacks, "pgd", lambda eps, steps, step_size: made.append((eps, steps, step_size)) or pgd(eps, steps, step_size))
    objectives.fast(Classifier(), sgd(), eps=0.2, watch_every=2, watch_steps=7)
    objectives.fast(Classifier(), sgd(), eps=0.2, step_size=0.1)
    assert made == [(0.2, 1, 0.25), (0.2, 7, 0.05), (0.2, 1, 0.1), (0.2, 10, 0.05)]


def test_the_two_passes_have_their_own_dropout_masks():
    """At a radius of 0 only the masks differ between the passes."""
    step, state = make("trades", Classifier(Net(dropout=0.5)), attack=attacks.pgd(0.0, steps=1), recompute_targets=False)
    _, metrics = jax.jit(step)(state, batch(), KEY)
    assert metrics["kl"] > 1e-3


def test_watch_scales_its_radius():
    """At a scale of 0 both measurements are the clean accuracy."""
    step, state = make("fast", eps=0.5, step_size=0.5, watch_every=1, watch_stride=1, eps_schedule=lambda t: 0.0 * t)
    _, metrics = jax.jit(step)(state, batch(), KEY)
    clean = (logits_of(state.params, batch()["image"]).argmax(-1) == batch()["label"]).mean()
    assert metrics["fgsm_accuracy"] == metrics["pgd_accuracy"] == clean > 0.1 and metrics["overfitting"] == 0


def test_free_resumes_with_its_perturbation(tmp_path):
    """Stopped after 2 of 3 steps, the run ends in the state of an uninterrupted one."""
    step, state = make("free")

    def train(steps, folder):
        return training.train(step, state, [batch(t) for t in range(3)], steps=steps, key=KEY, workdir=folder,
                              monitoring=training.Monitoring(progress=False))

    train(2, tmp_path / "a")
    again = jax.device_get(train(3, tmp_path / "a"))
    close(again, jax.device_get(train(3, tmp_path / "b")), atol=0)
    assert not np.array_equal(again.carry, state.carry)
    with training.Checkpoints(tmp_path / "a" / "checkpoints", read_only=True) as saved, \
            pytest.raises(ValueError, match="unexpected in the checkpoint: carry"):
        saved.restore(start())
