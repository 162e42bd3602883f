"""ResNet: timm's and torchvision's numbers, names and paddings, statistics, stems, feature maps."""
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vmamba_jax
from tests.helpers import golden_models
from vmamba_jax import checkpoints, models
from vmamba_jax.models.baselines import resnet
from vmamba_jax.models.baselines.resnet import ResNet

GOLDEN = "timm_resnet_small"
TINY = ResNet(num_classes=5, layers=(1, 1), channels=(4, 8), block="basic", stem="cifar", stem_width=4)


@pytest.fixture(scope="module")
def model():
    return checkpoints.model_from_options("resnet", golden_models.load(GOLDEN)[1]["constructor"])


def test_float64(x64, model):
    arrays, _ = golden_models.load(GOLDEN)
    recorded = golden_models.check_float64(model, GOLDEN)
    for ours, theirs in (("stem_out", "maxpool"), *((f"stage{i}_blocks", f"layer{i + 1}") for i in range(4))):
        np.testing.assert_allclose(recorded[ours][0], golden_models.nhwc(arrays[f"feat64.{theirs}"]), atol=1e-9, err_msg=theirs)


@pytest.mark.slow   # float64 reproduces the same arrays
def test_float32(model):
    golden_models.check_float32(model, GOLDEN)


@pytest.mark.slow
def test_padding_at_stride_2(x64, model):
    """XLA's "SAME" pads (0, 1) where PyTorch pads 1 on every side, which computes another function."""
    arrays, _ = golden_models.load(GOLDEN)
    variables = checkpoints.convert(model, golden_models.weights(GOLDEN, np.float64))
    images = golden_models.nhwc(arrays["input"]).astype(np.float64)
    error = lambda: np.abs(model.apply(variables, images) - arrays["logits64"]).max()
    assert error() < 1e-9
    same = lambda features, size, stride, *, name, **options: nn.Conv(
        features, (size, size), (stride, stride), "SAME", use_bias=False, name=name, **options)
    with mock.patch.object(resnet, "_conv", same):
        assert error() > 1e-3


@pytest.mark.slow
def test_stride_is_in_the_3x3_convolution():
    """v1.5: a halving bottleneck reads every position of its input, not every second one."""
    block, x = resnet.Block("bottleneck", 8, 2, zero_init_last=False), jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    variables = block.init(jax.random.key(1), x)
    gradient = jax.grad(lambda x: block.apply(variables, x).sum())(x)
    assert (np.abs(gradient[0, 1::2, 1::2]).max(-1) > 0).all()


@pytest.mark.parametrize("name,parameters,buffers", [("resnet18", 11_689_512, None), ("resnet50", 25_557_032, 53_173 - 53)])
def test_parameters(name, parameters, buffers):
    variables = golden_models.abstract(vmamba_jax.create_model(name))
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    assert size(variables["params"]) == parameters == models.entry(name).parameters
    assert buffers in (None, size(variables["batch_stats"]))  # torch also counts 53 times num_batches_tracked


def test_names():
    released = golden_models.released("resnet")
    ours = checkpoints.original_shapes(vmamba_jax.create_model("resnet50"))
    assert ours == {name: shape for name, shape in released.items() if not name.endswith("num_batches_tracked")}
    assert len(released) - len(ours) == 53


def test_running_statistics():
    """Momentum 0.1 in PyTorch's sense: 0.1 of the batch's statistics plus 0.9 of the old ones."""
    images = jax.random.uniform(jax.random.key(1), (8, 8, 8, 3))
    variables = jax.jit(TINY.init)(jax.random.key(0), images)
    _, updated = jax.jit(lambda v, x: TINY.apply(v, x, train=True, mutable=["batch_stats", "intermediates"]))(variables, images)
    convolved = jax.lax.conv_general_dilated(images, variables["params"]["conv1"]["kernel"], (1, 1), ((1, 1), (1, 1)),
                                             dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(updated["batch_stats"]["bn1"]["mean"], 0.1 * convolved.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["bn1"]["var"], 0.9 + 0.1 * convolved.var((0, 1, 2)), atol=1e-6)


def test_feature_maps(model):
    """Outputs of the four stages; no parameters of the head."""
    arrays, _ = golden_models.load(GOLDEN)
    backbone = model.clone(out_indices=(0, 1, 2, 3))
    variables = checkpoints.convert(backbone, golden_models.weights(GOLDEN, np.float32))
    assert "fc" not in variables["params"]
    maps = jax.jit(backbone.apply)(variables, golden_models.nhwc(arrays["input"]))
    assert len(maps) == 4
    for i, x in enumerate(maps):
        np.testing.assert_allclose(x, golden_models.nhwc(arrays[f"feat64.layer{i + 1}"]), atol=2e-5)
    assert vmamba_jax.create_model("resnet50", features_only=True).out_indices == (0, 1, 2, 3)


@pytest.mark.slow
def test_fields():
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
    variables = jax.jit(TINY.init)(jax.random.key(0), images)
    logits = TINY.apply(variables, images)
    assert logits.shape == (2, 5)
    np.testing.assert_allclose(TINY.clone(remat=True).apply(variables, images), logits, atol=1e-6)
    assert TINY.clone(dtype=jnp.bfloat16).apply(variables, images).dtype == jnp.bfloat16
    for zero, wanted in ((True, 0), (False, 1)):
        scales = flatten_dict(TINY.clone(zero_init_last=zero).init(jax.random.key(0), images)["params"])
        assert float(scales["layer1_0", "bn2", "scale"].max()) == wanted and float(scales["layer1_0", "bn1", "scale"].min()) == 1
    wide = TINY.clone(stem="imagenet", out_indices=(0, 1))
    shapes = jax.eval_shape(lambda x: wide.init_with_output(jax.random.key(0), x)[0], jax.ShapeDtypeStruct((1, 64, 48, 3), jnp.float32))
    assert [x.shape for x in shapes] == [(1, 16, 12, 4), (1, 8, 6, 8)]


@pytest.mark.parametrize("fields,words", [
    (dict(block="wide"), "block='wide': expected one of 'basic', 'bottleneck'"), (dict(stem="tiny"), "stem='tiny'"),
    (dict(layers=(1,)), "layers=(1,), channels=(4, 8)"), (dict(out_indices=(2,)), "out_indices=(2,)"),
])
def test_wrong_fields(fields, words):
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(TINY.clone(**fields).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    assert words in str(raised.value)


def test_options():
    with pytest.raises(ValueError, match="stem_type='deep'"):
        checkpoints.model_from_options("resnet", {"stem_type": "deep"})
    with pytest.raises(ValueError, match="block='Bottle'"):
        checkpoints.model_from_options("resnet", {"block": "Bottle"})
    assert checkpoints.model_from_options("resnet", {"block": "BasicBlock", "layers": [2, 2, 2, 2]}) == vmamba_jax.create_model("resnet18")
