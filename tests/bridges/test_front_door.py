"""What `vmamba_jax.classifier` checks and says, its preprocessing, its weights of now, and its identity in saved results."""
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from tests.helpers import one_net
from vmamba_jax import attacks, evaluation, models, parallel
from vmamba_jax.evaluation import identity

KEY = jax.random.key(0)
SHAPE = (2, 2, 3)
WEIGHTS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).random((6, *SHAPE), np.float32)
LABELS = np.arange(6) % 4


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def of_weights(weights, x):
    return x.reshape(len(x), -1) @ weights


def host(fn):
    """`fn` as a callback, which JAX cannot differentiate."""
    return lambda x: jax.pure_callback(fn, jax.ShapeDtypeStruct((len(x), 4), jnp.float32), x)


def noise(x):
    return np.random.default_rng().random((len(x), 4), np.float32)


def test_what_was_found_is_said_once(capsys):
    classifier = vmamba_jax.classifier(linear, mean=(0.1, 0.2, 0.3), std=0.5 * np.ones(3), name="mine", num_classes=4, image_shape=SHAPE)
    said = capsys.readouterr().err
    assert said == repr(classifier) + "\n" and said.count("\n") == 1
    assert said.startswith("classifier('mine', function linear; mean 0.1/0.2/0.3, std 0.5/0.5/0.5, NHWC; 4 classes, images 2 x 2 x 3, gradient nonzero")
    classifier(IMAGES)
    evaluation.accuracy(classifier, (IMAGES, LABELS))
    assert capsys.readouterr().err == "" and classifier.checked.faults == [] and classifier.name == "mine"


@pytest.mark.parametrize("use", [lambda c: c(IMAGES), lambda c: evaluation.accuracy(c, (IMAGES, LABELS)), lambda c: attacks.fgsm(0.1).jit(c)(IMAGES, LABELS)],
                         ids=["call", "evaluation", "attack"])
def test_the_first_images_are_checked_if_none_were_stated(use, capsys):
    classifier = vmamba_jax.classifier(linear)
    assert "not checked yet" in repr(classifier) and classifier.num_classes is None and capsys.readouterr().err == ""
    use(classifier)
    assert classifier.checked.image_shape == SHAPE and classifier.num_classes == 4 and capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ValueError, match="has 4 classes: expected num_classes=3"):
        use(vmamba_jax.classifier(linear, num_classes=3))


@pytest.mark.parametrize("model, message", {
    "zero": (lambda x: jnp.round(linear(x)), "gradient zero: gradient attacks measure nothing"),
    "no derivative": (host(lambda x: np.ones((len(x), 4), np.float32)), "gradient none: ValueError: Pure callbacks do not support JVP"),
    "not finite": (lambda x: linear(x) + 0 * jnp.sqrt(x - x).sum(), "gradient not finite"),
    "random": (lambda x: linear(x) + host(noise)(jax.lax.stop_gradient(x)), "two passes differ: attack the average"),
    "batch": (lambda x: linear(x) - linear(x).mean(0), "depend on the other images of its batch: is batch norm in training mode"),
    "probabilities": (lambda x: jax.nn.softmax(linear(x)), "outputs are probabilities: attacks need logits"),
}.values(), ids=["zero", "no derivative", "not finite", "random", "batch", "probabilities"])
def test_doubtful_findings_are_warnings(model, message):
    with pytest.warns(UserWarning, match=f"classifier it: .*{message}") as found:
        classifier = vmamba_jax.classifier(model, image_shape=SHAPE, name="it")
    assert any(re.search(message, fault) for fault in classifier.checked.faults) and message[:8] in repr(classifier) and len(found) <= 2


ERRORS = {
    "not finite": (dict(model=lambda x: linear(x) / 0), r"classifier function .* returned logits that are not finite"),
    "shape": (dict(model=lambda x: linear(x)[0]), r"returned \(4,\) for images of shape \(2, 2, 2, 3\): expected logits \(2, classes\)"),
    "tuple": (dict(model=lambda x: (linear(x), x)), "returned tuple for images"),
    "classes": (dict(model=linear, num_classes=10), "function linear has 4 classes: expected num_classes=10"),
    "one class": (dict(model=lambda x: linear(x)[:, :1]), "has 1 classes: expected at least 2"),
    "fails": (dict(model=lambda x: linear(x[:, 1:])), r"fails on images of shape \(2, 2, 2, 3\): TypeError: dot_general requires"),
    "no array": (dict(model=lambda x: np.asarray(x)), "fails on images of shape .*: TracerArrayConversionError"),
    "unknown name": (dict(model="vmamba_huge"), r"model='vmamba_huge': expected a name of vmamba_jax.list_models\(\), or the path"),
    "no model": (dict(model=3), "model=int: expected a module, a function, a catalog name, or the path"),
    "no variables": (dict(model=one_net.LinenNet()), "variables=None: expected the weights of LinenNet"),
    "no mean": (dict(model=models.ResNet(), variables={}), "mean=None with a ResNet: expected mean and std, models.IMAGENET_MEAN"),
    "mean alone": (dict(model=linear, mean=0.5), "mean=0.5, std=None: expected both or neither"),
    "std": (dict(model=linear, mean=0.5, std=0), "std=0.0: expected a finite number > 0"),
    "channels": (dict(model=linear, mean=(0.5, 0.5), std=(1, 1)), r"images.shape=\(2, 2, 2, 3\): expected 2 channels"),
    "bounds": (dict(model=linear, bounds=(1, 0)), r"bounds=\(1, 0\): expected an ascending pair"),
    "layout": (dict(model=linear, layout="CWH"), "layout='CWH': expected one of 'NHWC'"),
    "name": (dict(model=linear, name=""), "name='': expected a string, or None"),
    "image_shape": (dict(model=linear, image_shape=(3,)), r"image_shape=\(3,\): expected \(height, width, channels\)"),
    "own preprocessing": (dict(model=models.Classifier(one_net.LinenNet(), 0.5, 0.5), variables={}, mean=0.1, std=1.0),
                          "mean 0.1, std 1, NHWC stated for models.Classifier: expected mean=None"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    options, message = ERRORS[name]
    with pytest.raises((ValueError, TypeError), match=message) as found:
        vmamba_jax.classifier(**{"image_shape": SHAPE} | options)
    assert "\n" not in str(found.value)


def test_models_of_their_own_weights_take_none():
    for model in (one_net.nnx_net(), one_net.equinox_net()):
        with pytest.raises(ValueError, match="variables given with a .*: expected None, it holds its own"):
            vmamba_jax.classifier(model, {})
    with pytest.raises(ValueError, match="layout=None with a model of kind Equinox Sequential: expected 'CHW'"):
        vmamba_jax.classifier(one_net.equinox_net())
    with pytest.raises(TypeError, match="expected a model, not a classifier made of one"):
        vmamba_jax.classifier(vmamba_jax.classifier(linear))


def test_files_that_are_no_programs(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"no program at all")
    with pytest.raises(ValueError, match="weights.bin': expected a file of checkpoints.export_model or of jax.export"):
        vmamba_jax.classifier(tmp_path / "weights.bin")
    with pytest.raises(ValueError, match="with variables given: expected a program of 2 arguments, not 1"):
        vmamba_jax.classifier(one_net.exported(tmp_path / "net.export"), {})


def test_preprocessing_is_what_was_stated():
    """Bounds first, then mean and std in their units, then the layout; nothing that was not stated."""
    taken = []

    def model(x):
        taken.append(x)
        return x.reshape(len(x), -1)
    run = lambda images=IMAGES, **options: (vmamba_jax.classifier(model, **options).partial(images), taken[-1])[1]
    np.testing.assert_array_equal(run(), IMAGES)
    np.testing.assert_allclose(run(bounds=(0, 255)), IMAGES * 255, rtol=1e-6)
    np.testing.assert_allclose(run(bounds=(-1, 1), mean=0.5, std=(2, 4, 8)), (IMAGES * 2 - 1.5) / np.float32([2, 4, 8]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run(layout="NCHW"), IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(run(np.full((1, *SHAPE), 51, np.uint8)), 0.2, rtol=1e-6)
    single = vmamba_jax.classifier(lambda x: x.reshape(3, 4)[:, 0], layout="CHW")
    np.testing.assert_array_equal(single(IMAGES), IMAGES[:, 0, 0])


def test_weights_of_an_nnx_module_are_those_of_now():
    """Also under a jit of the caller's own; the module's mode and random state are not touched."""
    net = one_net.nnx_net()
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    classifier = vmamba_jax.classifier(net, name="net", image_shape=(8, 8, 3))
    compiled = jax.jit(lambda classifier, x: classifier(x))
    before, digest = np.asarray(classifier(images)), classifier.identity()
    np.testing.assert_allclose(compiled(classifier, images), before, atol=1e-6)
    net.dense.kernel[...], net.dense.bias[...] = -net.dense.kernel[...], -net.dense.bias[...]
    for found in (classifier(images), compiled(classifier, images)):
        np.testing.assert_allclose(found, -before, atol=1e-5)
    assert np.asarray(evaluation.accuracy(classifier, (images, before.argmin(-1)))["accuracy"]) == 1
    assert classifier.identity() != digest and not net.dropout.deterministic and int(net.dropout.rngs.count[...]) == 0


@pytest.mark.parametrize("make", [one_net.nnx_net, one_net.equinox_net])
def test_identity_of_modules(make):
    one, other = (vmamba_jax.classifier(make(), layout="CHW" if make is one_net.equinox_net else None) for _ in range(2))
    assert one.identity() == other.identity() and one.identity() is not None


def test_catalog_name_states_preprocessing_and_size(monkeypatch):
    monkeypatch.setattr(vmamba_jax.bridges.CheckedClassifier, "check", lambda self, shape: seen.append(shape))
    seen, variables = [], {"params": {}}
    classifier = vmamba_jax.classifier("resnet50", variables)
    assert seen == [(224, 224, 3)] and classifier.preprocessing.mean == models.IMAGENET_MEAN and classifier.weights == variables


def test_identity_is_name_and_weights():
    def make(weights=WEIGHTS, name="mine", scale=1.0, **options):
        return vmamba_jax.classifier(lambda x: x.reshape(len(x), -1) @ weights * scale, name=name, **options).identity()
    assert make() == make() and make().startswith("mine ")
    others = [make(-WEIGHTS), make(scale=2.0), make(name="other"), make(name=None), make(mean=0.5, std=0.5), make(bounds=(0, 255))]
    assert len({make(), *others}) == 7
    given = lambda weights: vmamba_jax.classifier(of_weights, weights, name="mine").identity()
    assert given(WEIGHTS) == given(jnp.asarray(WEIGHTS)) != given(-WEIGHTS)


def test_name_and_digest_identify_a_state_file():
    classifier = vmamba_jax.classifier(linear, name="mine")
    assert identity.of_model(classifier, None, "state.npz") == classifier.identity()
    assert identity.of_model(classifier, "given", "state.npz").startswith("given ")
    hidden = iter(range(3))
    unnamed, named = (vmamba_jax.classifier(lambda weights, x: linear(x) + (hidden is None), WEIGHTS, name=name) for name in (None, "mine"))
    assert unnamed.identity() is None and re.fullmatch("mine [0-9a-f]{32}", named.identity())
    with pytest.warns(UserWarning, match="range_iterator, which no other process can recognize"):
        identity.of_model(unnamed, None, "state.npz")


@pytest.mark.slow
def test_an_evaluation_resumes_with_the_same_weights_only(tmp_path):
    run = lambda weights, name="mine": evaluation.robust_accuracy(
        vmamba_jax.classifier(of_weights, weights, name=name), (IMAGES, LABELS), "autoattack", eps=0.01, steps=2, queries=2, n_targets=1, key=KEY,
        state=tmp_path / "state.npz", mesh=parallel.data_mesh(jax.devices()[:1]))
    first = run(WEIGHTS)
    np.testing.assert_array_equal(run(WEIGHTS.copy())["robust"], first["robust"])
    with pytest.raises(ValueError, match="of another evaluation .*model: 'mine "):
        run(-WEIGHTS)
    with pytest.raises(ValueError, match="model: 'mine .*' in the file, 'other "):
        run(WEIGHTS, "other")


class Switched(nn.Module):
    """A module that names its mode another way."""

    @nn.compact
    def __call__(self, x, deterministic):
        return nn.Dropout(0.9, deterministic=deterministic)(nn.Dense(4)(x.reshape(len(x), -1)))


def test_modules_are_called_in_evaluation_mode_and_may_be_bound():
    variables = {"params": {"Dense_0": {"kernel": WEIGHTS, "bias": np.zeros(4, np.float32)}}}
    for classifier in (vmamba_jax.classifier(Switched(), variables), vmamba_jax.classifier(Switched().bind(variables))):
        np.testing.assert_allclose(classifier(IMAGES), linear(IMAGES), atol=1e-5)
