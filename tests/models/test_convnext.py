"""ConvNeXt: timm's numbers, names and traps, the original repository's files, feature maps, initial distributions."""
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers import golden_models
from vmamba_jax import checkpoints
from vmamba_jax.models.baselines import convnext
from vmamba_jax.models.baselines.convnext import ConvNeXt

GOLDEN = "timm_convnext_small"
TINY = ConvNeXt(num_classes=5, depths=(1, 1), dims=(8, 16), patch_size=2)
BASE = dict(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024))


@pytest.fixture(scope="module")
def model():
    return checkpoints.model_from_options("convnext", golden_models.load(GOLDEN)[1]["constructor"])


def test_float64(x64, model):
    arrays, _ = golden_models.load(GOLDEN)
    recorded = golden_models.check_float64(model, GOLDEN)
    for ours, theirs in (("stem_out", "stem"), *((f"stage{i}_blocks", f"stages.{i}") for i in range(4))):
        np.testing.assert_allclose(recorded[ours][0], golden_models.nhwc(arrays[f"feat64.{theirs}"]), atol=1e-9, err_msg=theirs)
    np.testing.assert_allclose(recorded["final_norm"][0], arrays["feat64.head.norm"][..., 0, 0], atol=1e-9)


@pytest.mark.slow   # float64 reproduces the same arrays
def test_float32(model):
    golden_models.check_float32(model, GOLDEN)


def standardized(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


@pytest.mark.slow
@pytest.mark.slow
def test_traps_show(x64, model):
    """Norm before pooling, another eps or no gamma changes the logits by far more than the parity tolerance."""
    arrays, _ = golden_models.load(GOLDEN)
    images = golden_models.nhwc(arrays["input"]).astype(np.float64)

    def error(state_dict):
        variables = checkpoints.convert(model, state_dict)
        return np.abs(jax.jit(lambda images: model.apply(variables, images))(images) - arrays["logits64"]).max()

    weights = golden_models.weights(GOLDEN, np.float64)
    assert error(weights) < 1e-9
    assert error({name: np.ones_like(x) if name.endswith("gamma") else x for name, x in weights.items()}) > 1e-3
    with mock.patch.object(convnext, "EPS", 1e-5):
        assert error(weights) > 1e-7

    x = golden_models.nhwc(arrays["feat64.stages.3"])
    norm = lambda x: standardized(x) * weights["head.norm.weight"] + weights["head.norm.bias"]
    head = lambda x: x @ weights["head.fc.weight"].T + weights["head.fc.bias"]
    np.testing.assert_allclose(head(norm(x.mean((1, 2)))), arrays["logits64"], atol=1e-9)
    assert np.abs(head(norm(x).mean((1, 2))) - arrays["logits64"]).max() > 1e-3


@pytest.mark.parametrize("fields,parameters", [
    ({}, 28_589_128), (dict(depths=(3, 3, 27, 3)), 50_223_688), (BASE, 88_591_464)], ids=["tiny", "small", "base"])
def test_parameters(fields, parameters):
    assert golden_models.count(ConvNeXt(**fields)) == parameters


def test_names():
    assert checkpoints.original_shapes(ConvNeXt()) == golden_models.released("convnext")


def official(state_dict):
    """The state dict under the original repository's names, from timm's."""
    renamed = {}
    for name, x in state_dict.items():
        top, *rest = name.split(".")
        if top == "stem":
            name = ".".join(["downsample_layers.0", *rest])
        elif top == "stages" and rest[1] == "downsample":
            name = ".".join(["downsample_layers", rest[0], *rest[2:]])
        elif top == "stages":
            name = ".".join(["stages", rest[0], *rest[2:]]).replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        else:
            name = {"norm": "norm", "fc": "head"}[rest[0]] + "." + rest[1]
        renamed[name] = x
    return {"model": renamed}


def test_original_repository_files(model):
    given = golden_models.weights(GOLDEN, np.float32)
    theirs = official(given)
    assert {"downsample_layers.0.0.weight", "downsample_layers.3.1.bias", "stages.2.1.pwconv2.weight", "stages.0.0.dwconv.bias", "stages.3.1.gamma",
            "norm.weight", "head.bias"} <= set(theirs["model"])
    ours, wanted = (flatten_dict(checkpoints.convert(model, x)) for x in (theirs, given))
    assert ours.keys() == wanted.keys()
    for path in wanted:
        np.testing.assert_array_equal(ours[path], wanted[path], err_msg="/".join(path))
    downstream = {name: x for name, x in theirs["model"].items() if not name.startswith(("norm.", "head."))}
    downstream |= {"norm1.weight": np.full(32, 2.0, np.float32), "norm1.bias": np.full(32, 3.0, np.float32)}
    params = checkpoints.convert(model.clone(out_indices=(1,)), {f"backbone.{name}": x for name, x in downstream.items()})["params"]
    assert float(params["outnorm1"]["scale"][0]) == 2 and float(params["outnorm1"]["bias"][0]) == 3


def test_feature_maps(model):
    """Outputs of the stages after new norms of eps 1e-6; no parameters of the head."""
    arrays, _ = golden_models.load(GOLDEN)
    backbone = model.clone(out_indices=(0, 1, 2, 3))
    variables = checkpoints.convert(backbone, golden_models.weights(GOLDEN, np.float32))
    assert not {"norm", "head"} & set(variables["params"])
    maps = jax.jit(backbone.apply)(variables, golden_models.nhwc(arrays["input"]))
    assert len(maps) == 4
    for i, found in enumerate(maps):
        x = golden_models.nhwc(arrays[f"feat64.stages.{i}"])
        np.testing.assert_allclose(found, standardized(x), atol=2e-5)


@pytest.mark.slow
def test_initial_distributions():
    """Every kernel is normal(0.02), every bias zero, gamma 1e-6, so a new network is nearly its downsampling layers alone."""
    images = jnp.zeros((1, 8, 8, 3))
    wide = TINY.clone(dims=(64, 96))
    params = flatten_dict(jax.jit(wide.init)(jax.random.key(0), images)["params"])
    for path, x in params.items():
        wanted = {"kernel": (0, 0.02), "bias": (0, 0), "scale": (1, 0), "gamma": (1e-6, 0)}[path[-1]]
        np.testing.assert_allclose((x.mean(), x.std()), wanted, atol=2e-3 if path[-1] == "kernel" else 1e-9, err_msg="/".join(path))
    bare = flatten_dict(golden_models.abstract(wide.clone(layer_scale_init=None))["params"])
    assert params.keys() - bare.keys() == {path for path in params if path[-1] == "gamma"} and len(params) - len(bare) == 2


@pytest.mark.slow
def test_fields():
    images = jax.random.uniform(jax.random.key(1), (2, 9, 12, 3))
    model = TINY.clone(layer_scale_init=0.5)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    apply = lambda **fields: jax.jit(model.clone(**fields).apply)(variables, images)
    logits = apply()
    assert logits.shape == (2, 5)
    np.testing.assert_allclose(apply(remat=True), logits, atol=1e-6)
    narrow = apply(dtype=jnp.bfloat16)
    assert narrow.dtype == jnp.bfloat16 and np.abs(narrow - logits).max() < 0.05 * np.abs(logits).max()
    params = {name: p for name, p in variables["params"].items() if name != "head"}
    features = jax.jit(model.clone(num_classes=0).apply)({"params": params}, images)
    np.testing.assert_allclose(features @ variables["params"]["head"]["kernel"], logits, atol=1e-5)
    dropped = jax.jit(lambda: model.clone(drop_path_rate=0.9).apply(variables, images, train=True, rngs={"dropout": jax.random.key(3)}))()
    assert np.abs(dropped - logits).max() > 1e-6
    maps = jax.eval_shape(lambda x: model.clone(out_indices=(0, 1)).init_with_output(jax.random.key(0), x)[0], images)
    assert [x.shape for x in maps] == [(2, 4, 6, 8), (2, 2, 3, 16)]


@pytest.mark.parametrize("fields,shape,words", [
    ({}, (1, 8, 8, 1), "expected (batch, height, width, 3)"), ({}, (8, 8, 3), "(8, 8, 3)"), ({}, (1, 8, 3, 3), "sides of at least 4"),
    (dict(dims=(8,)), (1, 8, 8, 3), "depths=(1, 1), dims=(8,)"), (dict(out_indices=(2,)), (1, 8, 8, 3), "out_indices=(2,)"),
    (dict(drop_path_rate=-0.1), (1, 8, 8, 3), "drop_path_rate=-0.1"),
])
def test_wrong_fields_and_images(fields, shape, words):
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(TINY.clone(**fields).init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert words in str(raised.value)


def test_options():
    assert checkpoints.model_from_options("convnext", {}) == ConvNeXt(drop_path_rate=0.0)
    asked = dict(ls_init_value=None, patch_size=1, in_chans=1, drop_path_rate=0.5, **BASE)
    wanted = ConvNeXt(layer_scale_init=None, patch_size=1, in_channels=1, drop_path_rate=0.5, **BASE)
    assert checkpoints.model_from_options("convnext", asked) == wanted
    for option, words in ((dict(patch_size=2), "patch_size=2: expected one of 4, 1"), (dict(use_grn=True), "use_grn=True: expected False, the only supported value"),
                          (dict(kernel_sizes=5), "kernel_sizes=5"), (dict(head_norm_first=True), "head_norm_first=True")):
        with pytest.raises(ValueError, match=words):
            checkpoints.model_from_options("convnext", option)
