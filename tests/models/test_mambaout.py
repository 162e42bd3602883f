"""MambaOut: timm's numbers, names and traps for both heads and downsamplings, the original repository's files, maps, parameter counts."""
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vmamba_jax
from tests.helpers import golden_models
from vmamba_jax import checkpoints, models
from vmamba_jax.checkpoints.known_shapes import fitting
from vmamba_jax.models.baselines import mambaout
from vmamba_jax.models.baselines.mambaout import MambaOut

GOLDEN, RW = "timm_mambaout_small", "timm_mambaout_rw_small"
TINY = MambaOut(num_classes=5, depths=(1, 1), dims=(8, 16))


def built(name):
    return checkpoints.model_from_options("mambaout", golden_models.load(name)[1]["constructor"])


@pytest.mark.parametrize("name", [GOLDEN, pytest.param(RW, marks=pytest.mark.slow)])
def test_float64(x64, name):
    recorded = golden_models.check_gradients(built(name), name)
    assert {f"stage{i}_blocks" for i in range(4)} | {"stem_out", "final_norm"} <= recorded.keys()
    assert recorded["stages_2"]["blocks_0"]["gate"][0].shape[-1] == int(built(name).expansion_ratio * 24)


def test_logits_of_the_other_head():
    golden_models.check_logits(built(RW), RW)


@pytest.mark.slow
@pytest.mark.parametrize("name", [GOLDEN, RW])
def test_float32(name):
    golden_models.check_gradients(built(name), name, float64=False)


@pytest.mark.slow
def test_traps_show(x64):
    """Another eps, the tanh approximation, SiLU in the head, a swapped gate or no factors change the logits by far more than the tolerance."""
    model, arrays = built(RW), golden_models.load(RW)[0]
    weights, images = golden_models.weights(RW, np.float64), golden_models.nhwc(golden_models.load(RW)[0]["input"]).astype(np.float64)

    def error(state_dict=weights, model=model):
        variables = checkpoints.convert(model, state_dict)
        return np.abs(jax.jit(lambda images: model.apply(variables, images))(images) - arrays["logits_f64"]).max()

    assert error() < 1e-9
    assert error({name: np.ones_like(x) if name.endswith("gamma") else x for name, x in weights.items()}) > 1e-3
    with mock.patch.object(mambaout, "EPS", 1e-5):
        assert error() > 1e-7
    with mock.patch.object(mambaout, "activation", lambda name: jax.nn.silu):
        assert error() > 1e-3
    with mock.patch.object(mambaout, "activation", lambda name: jax.nn.gelu if name == "gelu" else jax.nn.silu):
        assert error() > 1e-6
    swapped = {name: np.roll(x, len(x) // 2, 0) if ".fc1." in name else x for name, x in weights.items()}
    assert error(swapped) > 1e-3


@pytest.mark.parametrize("name", ["mambaout_femto", *(pytest.param(f"mambaout_{size}", marks=pytest.mark.slow)
                                                      for size in ("kobe", "tiny", "small", "base", "base_wide_rw"))])
def test_parameters(name):
    """The counts of timm's full-size models."""
    wanted = golden_models.load(GOLDEN)[1]["full_size_parameters"]
    assert golden_models.count(vmamba_jax.create_model(name)) == wanted[name] == models.entry(name).parameters


def test_names_of_timm():
    model = vmamba_jax.create_model("mambaout_base_wide_rw")
    assert model.clone(drop_path_rate=0.0) == checkpoints.model_from_options("mambaout", dict(
        dims=(128, 256, 512, 768), depths=(3, 4, 27, 3), stem_mid_norm=False, downsample="conv_nf", ls_init_value=1e-6, head_fn="norm_mlp",
        expansion_ratio=3.0, conv_ratio=1.5, act_layer="silu"))
    assert models.entry("mambaout_femto.in1k").preprocessing.resize == 224


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
            name = ".".join(["stages", rest[0], *rest[2:]])
        else:
            name = {"head.norm": "norm", "head.pre_logits.fc": "head.fc1", "head.pre_logits.norm": "head.norm", "head.fc": "head.fc2"}[
                name.rpartition(".")[0]] + "." + rest[-1]
        renamed[name] = x
    return renamed


def test_original_repository_files():
    model, given = built(GOLDEN), golden_models.weights(GOLDEN, np.float32)
    theirs = official(given)
    assert {"downsample_layers.0.conv1.weight", "downsample_layers.3.norm.bias", "stages.2.1.fc2.weight", "norm.weight", "head.fc1.bias", "head.norm.bias",
            "head.fc2.weight"} <= set(theirs)
    ours, wanted = (flatten_dict(checkpoints.convert(model, x)) for x in (theirs, given))
    assert ours.keys() == wanted.keys() and all(np.array_equal(ours[path], wanted[path]) for path in wanted)
    back = checkpoints.to_state_dict(model, checkpoints.convert(model, theirs))
    assert back.keys() == given.keys() and all(np.array_equal(back[name], given[name]) for name in given)


def test_recognition():
    """By the number of parameters, under both spellings and with any number of classes."""
    shapes = {name: (10, *shape[1:]) if name.startswith("head.fc.") else shape
              for name, shape in checkpoints.original_shapes(vmamba_jax.create_model("mambaout_femto")).items()}
    content = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    assert fitting(content) == fitting(official(content)) == ["mambaout_femto"]


def test_feature_maps_and_features():
    """Maps round odd sides up; no parameters of the head, whose features num_classes=0 returns."""
    images = jax.ShapeDtypeStruct((2, 18, 33, 3), jnp.float32)
    maps, variables = jax.eval_shape(lambda x: TINY.clone(out_indices=(0, 1)).init_with_output(jax.random.key(0), x), images)
    assert [x.shape for x in maps] == [(2, 5, 9, 8), (2, 3, 5, 16)] and not {"norm", "hidden", "head"} & set(variables["params"])
    maps, _ = jax.eval_shape(lambda x: TINY.clone(out_indices=(0, 1), patch_size=2).init_with_output(jax.random.key(0), x), images)
    assert [x.shape[1:3] for x in maps] == [(9, 17), (5, 9)]
    features, _ = jax.eval_shape(lambda x: TINY.clone(num_classes=0).init_with_output(jax.random.key(0), x), images)
    assert features.shape == (2, 64)


@pytest.mark.slow
def test_initial_distributions():
    params = flatten_dict(jax.jit(TINY.clone(dims=(64, 96), layer_scale_init=0.3).init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"])
    for path, x in params.items():
        wanted = {"kernel": (0, 0.02), "bias": (0, 0), "scale": (1, 0), "gamma": (0.3, 0)}[path[-1]]
        np.testing.assert_allclose((x.mean(), x.std()), wanted, atol=2e-3 if path[-1] == "kernel" else 1e-7, err_msg="/".join(path))


@pytest.mark.parametrize("fields,shape,words", [
    ({}, (1, 8, 8, 1), "expected (batch, height, width, 3)"), (dict(dims=(8,)), (1, 8, 8, 3), "depths=(1, 1), dims=(8,)"),
    (dict(conv_ratio=3.0), (1, 8, 8, 3), "conv_ratio=3.0: expected 1 to 21 of the 8 channels"), (dict(patch_size=8), (1, 8, 8, 3), "patch_size=8: expected one of 4, 2, 1"), (dict(act="tanh"), (1, 8, 8, 3), "activation='tanh'"),
])
def test_wrong_fields_and_images(fields, shape, words):
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(TINY.clone(**fields).init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert words in str(raised.value)


@pytest.mark.parametrize("option,words", [
    (dict(head_fn="mlp"), "head_fn='mlp': expected one of 'default', 'norm_mlp'"), (dict(downsample="pool"), "downsample='pool'"),
    (dict(global_pool="max"), "global_pool='max': expected 'avg', the only supported value"), (dict(depth=3), "depth=3: expected options of mambaout")])
def test_options(option, words):
    with pytest.raises(ValueError, match=words):
        checkpoints.model_from_options("mambaout", option)
