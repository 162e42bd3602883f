"""The objectives: what they optimize, what the attack sees, and the same update under every mapping over devices."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers.toy_training import CLASSES, SHAPE, Classifier, Net, batch, close, pmapped, sharded, vmapped
from vmamba_jax import attacks, training
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.inner_attack import InnerAttack, scale_radius

KEY = jax.random.key(3)
PGD = attacks.pgd(0.1, steps=3, step_size=0.05)


@functools.cache
def sgd():
    return training.optimizer.create("sgd", learning_rate=0.1)


@functools.cache
def start(classifier, optimizer, **options):
    return training.create_state(classifier, optimizer, jax.random.key(0), SHAPE, **options)


def logits(classifier, state, images, **options):
    return jax.jit(lambda variables, images: classifier(variables, images, **options))(state.variables(), images)


def jitted(step, state, data, key):
    return jax.jit(step)(state, data, key)


def objective(name, classifier, optimizer, **options):
    options = {"attack": PGD, "clean_accuracy": True, **options} if name == "pgd_at" else options
    return training.objectives.create(name, classifier, optimizer, label_smoothing=0.1, **options)


def jitter(images, keys):
    """An augmentation that draws from the per-image keys."""
    return jnp.clip(images + jax.vmap(lambda key: jax.random.uniform(key, SHAPE, minval=-0.05, maxval=0.05))(keys), 0, 1)


@pytest.mark.parametrize("name", ["standard", "pgd_at"])
@pytest.mark.often(1)
def test_same_update_on_one_device_and_eight(name):
    classifier, optimizer = Classifier(), sgd()
    step = objective(name, classifier, optimizer, augment=jitter, ema_decay=0.5)
    state = start(classifier, optimizer, ema_decay=0.5)
    expected = jitted(step, state, batch(), KEY)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), *jax.device_get((state.params, expected[0].params)))
    assert all(0.001 < x < 1 for x in jax.tree.leaves(moved))
    for run in (pmapped, sharded):
        close(run(step, state, batch(), KEY), expected)


@pytest.mark.slow
def test_same_batch_statistics_and_dropout_under_every_mapping():
    classifier, optimizer = Classifier(Net("batch", dropout=0.5)), sgd()
    step = objective("pgd_at", classifier, optimizer, attack_mode="train")
    state = start(classifier, optimizer)
    expected = vmapped(step, state, batch(), KEY)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), *jax.device_get((state.model_state, expected[0].model_state)))
    assert all(x > 1e-3 for x in jax.tree.leaves(moved))
    for run in (pmapped, sharded):
        close(run(step, state, batch(), KEY), expected, atol=1e-5)  # rounding may flip the sign of a gradient near 0


def test_synchronised_batch_norm_on_eight_devices_is_one_device_with_the_whole_batch():
    optimizer = sgd()
    make = lambda axis_name: objective("pgd_at", Classifier(Net("batch", axis_name=axis_name)), optimizer)
    state = start(Classifier(Net("batch")), optimizer)
    close(sharded(make("data"), state, batch(), KEY), jitted(make(None), state, batch(), KEY))


def test_standard_update_is_the_gradient_of_smoothed_cross_entropy():
    classifier, optimizer = Classifier(), sgd()
    state, data = start(classifier, optimizer), batch()

    def loss(params):
        log_p = jax.nn.log_softmax(classifier({"params": params}, data["image"]))
        target = jnp.full_like(log_p, 0.2 / CLASSES).at[jnp.arange(16), data["label"]].add(0.8)
        return -(target * log_p).sum(-1).mean()

    new, metrics = jitted(training.objectives.standard(classifier, optimizer, label_smoothing=0.2), state, data, KEY)
    value, grads = jax.jit(jax.value_and_grad(loss))(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * 1.9 * g, state.params, grads)  # nesterov's first step: g + 0.9 g
    close(new.params, expected)
    right = np.argmax(logits(classifier, state, data["image"]), -1) == data["label"]
    wanted = {"loss": value, "accuracy": right.mean(), "grad_norm": optax.tree.norm(grads), "learning_rate": 0.1}
    assert metrics.keys() == wanted.keys()
    for name, x in wanted.items():
        np.testing.assert_allclose(metrics[name], x, rtol=1e-5, err_msg=name)
    assert int(new.step) == 1


def test_soft_labels_count_as_their_one_hot():
    classifier, optimizer = Classifier(), sgd()
    state, data = start(classifier, optimizer), batch()
    step = objective("pgd_at", classifier, optimizer)
    soft = {**data, "label": np.eye(CLASSES, dtype=np.float32)[data["label"]]}
    close(jitted(step, state, soft, KEY), jitted(step, state, data, KEY))


def test_pgd_at_attacks_the_current_weights():
    classifier, optimizer = Classifier(), sgd()
    state, data = start(classifier, optimizer), batch()
    new, metrics = jitted(training.objectives.pgd_at(classifier, optimizer, attack=PGD, clean_accuracy=True), state, data, KEY)
    logits_fn = jax.tree_util.Partial(classifier, state.variables())
    adversarial = jax.jit(PGD)(logits_fn, data["image"], data["label"], losses.step_keys(KEY, 16).attack)
    assert jnp.abs(adversarial - data["image"]).max() > 0.05
    other, expected = jitted(training.objectives.standard(classifier, optimizer), state, {**data, "image": adversarial}, KEY)
    close(new, other)
    clean = (np.argmax(logits(classifier, state, data["image"]), -1) == data["label"]).mean()
    close(metrics, {**expected, "clean_accuracy": clean})


def test_inner_attack_is_its_keywords():
    """An `InnerAttack` and the keywords that it is made of give one step; fast's default mode is "train"."""
    ramp = training.schedules.ramp(4, start=0.5)
    inner = InnerAttack(PGD, "train", ramp, ("eps",))
    keywords = {"attack_mode": "train", "eps_schedule": ramp, "scheduled": ("eps",)}
    found, rest = InnerAttack.from_options(PGD, {**keywords, "accumulate": 2})
    assert found == inner and rest == {"accumulate": 2}
    assert InnerAttack.from_options(inner, rest) == (inner, rest)
    assert InnerAttack.from_options(PGD, {}, attack_mode="train") == (InnerAttack(PGD, "train"), {})
    classifier, optimizer = Classifier(Net("batch")), sgd()
    state = start(classifier, optimizer)
    a, b = (training.objectives.pgd_at(classifier, optimizer, **options).rule.prepare(state, batch(), losses.step_keys(KEY, 16))
            for options in ({"attack": inner}, {"attack": PGD, **keywords}))
    close(a, b, atol=0)
    assert jnp.abs(a[0]["image"] - batch()["image"]).max() == pytest.approx(0.05, abs=1e-6) and a[1]["eps_scale"] == 0.5


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_attack_mode(mode):
    """With BatchNorm and dropout the two modes differ; the attack's passes change neither the state nor the update."""
    classifier, optimizer = Classifier(Net("batch", dropout=0.5)), sgd()
    state, data = start(classifier, optimizer), batch()
    state = state.replace(model_state=jax.tree.map(lambda x: x + 0.3, state.model_state))  # running statistics unlike the batch's
    seen = []

    def attack(logits_fn, images, labels, keys):
        jax.debug.callback(lambda *x: seen.extend(x), logits_fn(images), logits_fn(images))
        return images

    new, _ = jitted(training.objectives.pgd_at(classifier, optimizer, attack=attack, attack_mode=mode), state, data, KEY)
    alone, _ = jitted(training.objectives.standard(classifier, optimizer), state, data, KEY)
    close(new, alone)
    jax.effects_barrier()
    first, again = seen
    np.testing.assert_array_equal(first, again)
    rngs = {"dropout": losses.step_keys(KEY, 16).attack_dropout}
    expected = {"eval": logits(classifier, state, data["image"]),
                "train": logits(classifier, state, data["image"], train=True, rngs=rngs, mutable=["batch_stats"])[0]}
    for name, x in expected.items():
        assert np.allclose(first, x, atol=1e-5) == (name == mode)


def test_radius_ramp():
    optimizer, data = sgd(), batch()
    distances = []

    class Spy(Classifier):
        def __call__(self, variables, images, train=False, **options):
            if train:
                jax.debug.callback(lambda x: distances.append(float(x)), jnp.abs(images - data["image"]).max())
            return super().__call__(variables, images, train=train, **options)

    step = jax.jit(training.objectives.pgd_at(Spy(), optimizer, attack=PGD, eps_schedule=training.schedules.ramp(4)))
    state, scales = start(Classifier(), optimizer), []
    for _ in range(6):
        state, metrics = step(state, data, KEY)
        scales.append(float(metrics["eps_scale"]))
    jax.effects_barrier()
    assert scales == [0, 0.25, 0.5, 0.75, 1, 1]
    np.testing.assert_allclose(distances, 0.1 * np.array(scales), atol=1e-6)


def test_radius_schedule_scales_the_step_size():
    half = scale_radius(PGD, 0.5)
    assert (half.eps, half.step_size, half.steps, half.norm) == (0.05, 0.025, 3, "linf")
    assert scale_radius(attacks.fgsm(0.2), 0.25).eps == pytest.approx(0.05)


@pytest.mark.parametrize("warmup", [False, True])
def test_running_average_against_a_loop(warmup):
    classifier, optimizer = Classifier(), sgd()
    step = jax.jit(training.objectives.standard(classifier, optimizer, ema_decay=0.3, ema_warmup=warmup))
    state = start(classifier, optimizer, ema_decay=0.3)
    expected = [np.asarray(x, np.float64) for x in jax.tree.leaves(state.params)]
    for t in range(6):
        state, _ = step(state, batch(t), jax.random.fold_in(KEY, t))
        d = min(0.3, (1 + t) / (10 + t)) if warmup else 0.3
        expected = [d * e + (1 - d) * np.asarray(p, np.float64) for e, p in zip(expected, jax.tree.leaves(state.params), strict=True)]
    for e, x in zip(expected, jax.tree.leaves(state.variables(ema=True)["params"]), strict=True):
        np.testing.assert_allclose(x, e, atol=1e-6)
    assert jax.tree.leaves(state.variables()["params"])[0] is jax.tree.leaves(state.params)[0]


@pytest.mark.parametrize("name", ["standard", "pgd_at"])
def test_learns(name):
    classifier, optimizer = Classifier(Net("batch", dropout=0.1)), training.optimizer.create("adamw", learning_rate=1e-2)
    step = jax.jit(objective(name, classifier, optimizer))
    state, losses = start(classifier, optimizer), []
    for t in range(60):
        state, metrics = step(state, batch(t, 32), jax.random.fold_in(KEY, t))
        losses.append(float(metrics["loss"]))
    assert losses[0] > 1.0 and np.mean(losses[-5:]) < 0.6
    assert metrics["accuracy"] > 0.9


@pytest.mark.parametrize("options, message", [
    ({"attack": PGD, "attack_mode": "test"}, "attack_mode='test': expected one of 'eval', 'train'"),
    ({"attack": PGD, "label_smoothing": 1.0}, "label_smoothing=1.0: expected a finite number >= 0 and < 1"),
    ({"attack": 3}, "attack=3: expected a callable"),
    ({"attack": PGD, "eps_schedule": 0.5}, "eps_schedule=0.5: expected None or a function"),
    ({"attack": lambda *a: a[1], "eps_schedule": lambda t: 1.0}, "attack=.* with eps_schedule: .* dataclass with a field eps"),
    ({"attack": PGD, "ema_decay": 1.0}, "ema_decay=1.0: expected None or a finite number >= 0 and < 1"),
    ({"attack": PGD, "ema_warmup": True}, "ema_warmup=True with ema_decay=None: expected an ema_decay"),
    ({"attack": InnerAttack(PGD), "attack_mode": "eval"}, "with attack_mode: expected these as fields of the InnerAttack"),
])
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        training.objectives.pgd_at(Classifier(), sgd(), **options)


def test_other_errors():
    classifier, optimizer = Classifier(), sgd()
    with pytest.raises(ValueError, match="objective='madry': expected one of .*'pgd_at', "):
        training.objectives.create("madry", classifier, optimizer)
    with pytest.raises(ValueError, match="same ema_decay"):
        jax.eval_shape(training.objectives.standard(classifier, optimizer, ema_decay=0.9), start(classifier, optimizer), batch(), KEY)
    with pytest.raises(ValueError, match="ema=True with a state without an average: expected a state created with ema_decay"):
        start(classifier, optimizer).variables(ema=True)
    with pytest.raises(ValueError, match="ema_decay=-1.0: expected None or a finite number >= 0 and < 1"):
        training.create_state(classifier, optimizer, KEY, SHAPE, ema_decay=-1)
    with pytest.raises(ValueError, match=r"image_shape=\(4, 4\): expected \(H, W, C\), all >= 1"):
        training.create_state(classifier, optimizer, KEY, (4, 4))
    with pytest.raises(ValueError, match=r"variables with collections \['batch_stats'\]: expected a collection 'params'"):
        training.create_state(classifier, optimizer, KEY, SHAPE, variables={"batch_stats": {}})


def test_mixed_before_the_attack():
    """`mix` gets the augmented images and the per-image keys; attack and loss get its result."""
    classifier, optimizer = Classifier(), sgd()
    state, data = start(classifier, optimizer), batch()
    targets = jax.nn.one_hot((data["label"] + 1) % 3, 3)
    mix = lambda images, labels, keys: (1 - images, jax.nn.one_hot((labels + 1) % 3, 3) + 0 * keys.shape[0])
    mixed = jitted(training.objectives.pgd_at(classifier, optimizer, attack=PGD, mix=mix, augment=lambda x, keys: x / 2), state, data, KEY)
    given = jitted(training.objectives.pgd_at(classifier, optimizer, attack=PGD), state, {"image": 1 - data["image"] / 2, "label": targets}, KEY)
    close(mixed, given)
    with pytest.raises(TypeError, match="mix=3: expected None or a function"):
        training.objectives.standard(classifier, optimizer, mix=3)


def test_start_from_given_variables():
    classifier, optimizer = Classifier(Net("batch")), sgd()
    variables = {**classifier.init(KEY, SHAPE), "intermediates": {"seen": jnp.ones(3)}}
    state = training.create_state(classifier, optimizer, KEY, SHAPE, variables=variables)
    close(state.variables(), {name: variables[name] for name in ("params", "batch_stats")}, atol=0)
    jax.jit(training.objectives.standard(classifier, optimizer), donate_argnums=0)(state, batch(), KEY)
    assert not any(x.is_deleted() for x in jax.tree.leaves(variables))
