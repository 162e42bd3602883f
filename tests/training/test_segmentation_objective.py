"""The objective of segmentation: its loss and metrics, eight devices, adversarial training, label maps that are wrong, and a run that learns."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers.toy_training import close, pmapped
from vmamba_jax import attacks, data, training
from vmamba_jax.models import Classifier
from vmamba_jax.models.dense.layers import BatchNorm
from vmamba_jax.training.objectives.segmentation import pixel_accuracy, pixel_cross_entropy

CLASSES, SHAPE, KEY = 3, (6, 6, 3), jax.random.key(2)


class Net(nn.Module):
    """Two layers with a dense head's batch norm, and an auxiliary head."""
    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False, auxiliary=False):
        x = jax.nn.relu(BatchNorm(name="bn")(nn.Conv(8, (3, 3), name="conv")(x), train))
        logits, other = nn.Dense(CLASSES, name="head")(x), nn.Dense(CLASSES, name="auxiliary")(x)
        return (logits, other) if auxiliary or self.is_initializing() else logits


CLASSIFIER = Classifier(Net(), 0.5, 0.25)
OPTIMIZER = training.optimizer.create("sgd", learning_rate=0.5, momentum=0.9)
ATTACK = attacks.dense_pgd(0.05, 2, 0.03)


def batch(n=16, weighted=False):
    """Images whose largest color channel is the label, a few pixels ignored."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(n, *SHAPE)).astype(np.float32)
    labels = images.argmax(-1).astype(np.int32)
    labels[:, 0, 0] = 255
    return {"image": images, "label": labels} | ({"weight": np.float32([1] * (n - 3) + [0] * 3)} if weighted else {})


@pytest.fixture(scope="module")
def state():
    return training.create_state(CLASSIFIER, OPTIMIZER, jax.random.key(0), SHAPE)


def test_loss_and_metrics(state):
    """Plain NumPy: the mean over all pixels, ignored ones too, plus 0.4 of the auxiliary head's."""
    given = batch()
    _, metrics = jax.jit(training.objectives.segmentation(CLASSIFIER, OPTIMIZER))(state, given, KEY)
    assert training.objectives.segmentation(CLASSIFIER, OPTIMIZER, attack=ATTACK).cost.forward_backward == 3
    variables = state.variables()
    both = jax.jit(lambda images: CLASSIFIER(variables, images, train=True, mutable=["batch_stats"], auxiliary=True)[0])(given["image"])
    logits, other = (np.asarray(x, np.float64) for x in both)
    counted = given["label"] != 255

    def mean(x):
        p = np.exp(x - x.max(-1, keepdims=True))
        p = np.take_along_axis(p / p.sum(-1, keepdims=True), np.where(counted, given["label"], 0)[..., None], -1)[..., 0]
        return -np.log(p)[counted].sum() / counted.size
    assert float(metrics["loss"]) == pytest.approx(mean(logits) + 0.4 * mean(other), rel=1e-5)
    assert float(metrics["auxiliary_loss"]) == pytest.approx(mean(other), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx((logits.argmax(-1) == given["label"])[counted].mean(), rel=1e-5)
    alone = jax.jit(training.objectives.segmentation(CLASSIFIER, OPTIMIZER, auxiliary=0))(state, given, KEY)[1]
    assert "auxiliary_loss" not in alone and float(alone["loss"]) == pytest.approx(mean(logits), rel=1e-5)


def test_pixel_losses():
    logits, labels = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 2, 3)), jnp.float32), jnp.array([[[0, 2], [255, 1]], [[255, 255], [255, 255]]])
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 3), 0.1)
    wanted = jnp.where(labels == 255, 0, optax.softmax_cross_entropy(logits, targets)).mean()
    assert float(pixel_cross_entropy(logits, labels, label_smoothing=0.1)) == pytest.approx(float(wanted), rel=1e-6)
    assert float(pixel_cross_entropy(logits, labels, weight=jnp.array([0.0, 2.0]))) == 0
    assert np.isnan(pixel_cross_entropy(logits, labels.at[0, 0, 0].set(3))) and np.isnan(pixel_cross_entropy(logits, labels.at[0, 0, 0].set(-1)))
    assert float(pixel_accuracy(logits, logits.argmax(-1))) == 1 and float(pixel_accuracy(logits, labels * 0 + 255)) == 1


@pytest.mark.parametrize("weighted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_eight_devices_make_one_step(state, weighted):
    """PGD-AT with the batch norm's statistics over the whole batch, rows of weight 0 left out."""
    step, given = training.objectives.segmentation(CLASSIFIER, OPTIMIZER, attack=ATTACK), batch(weighted=weighted)
    one = jax.jit(step)(state, given, KEY)
    close(pmapped(step, state, given, KEY), jax.device_get(one), atol=2e-6)
    if weighted:
        kept = {name: x[:13] for name, x in given.items() if name != "weight"}
        alone = jax.jit(step)(state, kept, KEY)
        close(jax.device_get(one[0].model_state), jax.device_get(alone[0].model_state), atol=2e-6)
        close(jax.device_get(one[0].params), jax.device_get(alone[0].params), atol=2e-6)


@pytest.mark.parametrize("change,message", [
    (lambda labels: np.where(np.arange(16)[:, None, None] == 5, 3, labels), r"labels\[105, 0, 0\]=3: expected a class from 0 to 2, or 255"),
    (lambda labels: labels[:, 0, 0], r"labels.shape=\(16,\): expected \(16, height, width\)"), (lambda labels: labels * 1.0, "labels.dtype=float"),
    (lambda labels: np.where(labels == 1, -1, labels), "=-1: expected a class from 0 to 2, or 255"),
])
def test_wrong_label_maps(change, message):
    step, given = training.objectives.segmentation(CLASSIFIER, OPTIMIZER), batch()
    given |= {"label": change(given["label"]), "index": np.arange(16) + 100}
    with pytest.raises((ValueError, TypeError), match=message):
        step.check_batch(given)


@pytest.mark.parametrize("options,message", [
    ({"augment": lambda x, keys: x}, "augment=.*: expected None"), ({"auxiliary": -1}, "auxiliary=-1"), ({"clean_accuracy": True}, "clean_accuracy=True"),
    ({"beta": 3}, "beta=3"),
])
def test_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        training.objectives.create("segmentation", CLASSIFIER, OPTIMIZER, **options)


def test_a_run_learns(state, tmp_path):
    """`training.train` takes the step as it is; clean accuracy is measured on request."""
    source = data.DenseArrays(*[batch(48)[name] if name == "label" else (batch(48)[name] * 255).astype(np.uint8) for name in ("image", "label")], ("r", "g", "b"))
    step = training.objectives.segmentation(CLASSIFIER, OPTIMIZER, attack=ATTACK, clean_accuracy=True)
    seen = {}
    training.train(step, state, data.Batches(source, 16), steps=12, key=KEY, monitoring=training.Monitoring(
        log_every=6, progress=False, on_log=lambda done, values: seen.update({done: values})))
    assert seen[12]["loss"] < seen[6]["loss"] and seen[12]["clean_accuracy"] > max(seen[12]["accuracy"], 0.55)
