"""Vim: parity with the original in numbers and names, its traps, the equations of every option, other image sizes."""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers import golden_models
from tests.helpers.vim_equations import apply, drawn, explicit_vim, normal, random_variables
from vmamba_jax import checkpoints
from vmamba_jax.checkpoints.families import vim as family
from vmamba_jax.models.layers import common
from vmamba_jax.models.vim import vim
from vmamba_jax.models.vim.vim import Vim
from vmamba_jax.training.optimization import weight_decay

GOLDEN = "vim_small"
TINY = Vim(num_classes=3, embed_dim=20, depth=1, patch_size=4, stride=2, d_state=2, image_size=8, drop_path_rate=0.0)   # 3 x 3 patches


@pytest.fixture(scope="module")
def released():
    options = {name: value for name, value in golden_models.load(GOLDEN)[1].items() if name in family.DEFAULTS}
    return checkpoints.model_from_options("vim", options)


def weights(dtype):
    arrays, _ = golden_models.load(GOLDEN)
    return {name.removeprefix("sd/"): x.astype(dtype) for name, x in arrays.items() if name.startswith("sd/")}


# ---- the original's numbers

def golden_run(model, dtype):
    """(loss, logits, final tokens, gradients of the images and, in float64, the parameters), in one compiled call."""
    arrays, _ = golden_models.load(GOLDEN)

    def loss(images, params):
        logits, recorded = model.apply({"params": params}, images, mutable=["intermediates"])
        return -jax.nn.log_softmax(logits)[jnp.arange(3), arrays["labels"]].mean(), (logits, recorded["intermediates"]["final_norm"][0])

    wide = dtype == np.float64
    params = checkpoints.convert(model, {"model": weights(dtype)})["params"]
    images = jnp.asarray(golden_models.nhwc(arrays["input"]), dtype)
    (value, (logits, tokens)), gradients = jax.jit(jax.value_and_grad(loss, (0, 1)[:1 + wide], has_aux=True))(images, params)
    return value, logits, tokens, gradients


def close(got, wanted, tolerance, what=""):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=what)


@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-9), pytest.param(np.float32, 2e-5, marks=pytest.mark.slow)], ids=["float64", "float32"])
def test_golden(request, released, dtype, tolerance):
    if dtype == np.float64:
        request.getfixturevalue("x64")
    arrays, info = golden_models.load(GOLDEN)
    value, logits, tokens, (images, *params) = golden_run(released, dtype)
    assert logits.dtype == dtype
    close(logits, arrays["logits"], tolerance)
    close(images, golden_models.nhwc(arrays["input_grad"]), tolerance)
    np.testing.assert_allclose(value, arrays["loss_ce"], rtol=tolerance)
    close(tokens[:, info["cls_pos"]], arrays["cls_feature"], tolerance)
    if params:
        given = {name.removeprefix("grad/"): x for name, x in arrays.items() if name.startswith("grad/")}
        wanted = flatten_dict(checkpoints.convert(released, {**weights(dtype), **given})["params"])
        gradients = {family.original_name(released, path): (g, wanted[path]) for path, g in flatten_dict(params[0]).items()}
        assert len(given) == 12
        for name in given:
            close(*gradients[name], tolerance, name)


def test_traps_show(x64, released):
    """Weights in the layout of a misread original change the logits by more than the parity tolerance."""
    arrays, _ = golden_models.load(GOLDEN)
    images, given = jnp.asarray(golden_models.nhwc(arrays["input"])), weights(np.float64)
    run = jax.jit(released.apply)
    error = lambda changed: np.abs(run(checkpoints.convert(released, {**given, **changed}), images) - arrays["logits"]).max()
    change = lambda suffix, f: {name: f(x) for name, x in given.items() if name.endswith(suffix)}
    halves = lambda x: np.concatenate(np.split(x, 2)[::-1])
    assert error({}) < 1e-9
    assert error(change("in_proj.weight", halves)) > 1e-3, "z first"
    assert error(change("x_proj.weight", lambda x: np.concatenate([x[:2], x[18:], x[2:18]]))) > 1e-3, "C before B"
    assert error(change("x_proj_b.weight", lambda x: np.concatenate([x[2:], x[:2]]))) > 1e-3, "step size last"
    assert error(change("conv1d_b.weight", lambda x: x[:, :, ::-1])) > 1e-3, "taps of the backward convolution in the other order"
    assert error(change("pos_embed", lambda x: np.concatenate([x[:, 8:9], x[:, :8], x[:, 9:]], axis=1))) > 1e-3, "class row first"
    assert error(change("pos_embed", lambda x: x * (np.arange(17) != 8)[:, None])) > 1e-4, "class token without a position"
    assert error(change("A_b_log", lambda x: given["layers.0.mixer.A_log"])) > 1e-3, "one A for both directions"
    swapped = {name.replace("dt_proj_b.", "dt_proj."): x for name, x in given.items() if "dt_proj_b" in name}
    assert error(swapped) > 1e-3, "one step size for both directions"


@pytest.mark.parametrize("trap", ["eps", "mean", "sum", "head"])
@pytest.mark.often(2)
def test_more_traps_show(x64, released, trap, monkeypatch):
    """The same for eps 1e-6, a subtracted mean, the sum of the directions instead of their mean, and a class token before all patches."""
    arrays, _ = golden_models.load(GOLDEN)
    model = {"sum": released.clone(divide_out=False), "head": released.clone(class_token="head")}.get(trap, released)
    if trap == "eps":
        monkeypatch.setattr(vim, "EPS", 1e-6)
    if trap == "mean":
        monkeypatch.setattr(vim, "RMSNorm", Centered)
    logits = apply(model, checkpoints.convert(released, weights(np.float64)), jnp.asarray(golden_models.nhwc(arrays["input"])))
    assert np.abs(logits - arrays["logits"]).max() > 1e-6


class Centered(vim.RMSNorm):
    @nn.compact
    def __call__(self, x):
        return common.standardize(x) * self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)


@pytest.mark.parametrize("fields,parameters", [
    ({}, 7_148_008), (dict(stride=8), 7_250_344), (dict(embed_dim=384), 25_796_584), (dict(embed_dim=384, stride=8), 26_001_256),
    (dict(embed_dim=768), 97_598_440),
], ids=["tiny", "tiny stride 8", "small", "small stride 8", "base"])
def test_parameters(fields, parameters):
    one, two = (golden_models.count(Vim(depth=depth, **fields)) for depth in (1, 2))
    assert one + 23 * (two - one) == parameters


def test_names():
    shapes = checkpoints.original_shapes(Vim())
    assert shapes == golden_models.released("vim") and len(shapes) == 415 and sum(map(np.prod, shapes.values())) == 7_148_008
    double = checkpoints.original_shapes(TINY.clone(class_token="double", layer_scale=0.1))
    assert {"cls_token_head", "cls_token_tail", "layers.0.mixer.gamma"} <= set(double) and "cls_token" not in double
    assert double["pos_embed"] == (1, 11, 20) and double["layers.0.mixer.conv1d.weight"] == (40, 1, 4)


# ---- the equations

@pytest.mark.parametrize("fields", [
    dict(class_token="middle"), dict(class_token="middle", pool="max"), dict(class_token="head"), dict(class_token="double"),
    dict(class_token="none", pool="last", pos_embed=False), dict(class_token="none", pool="mean"), dict(class_token="none", pool="max"),
    dict(class_token="none", pool="all"),
], ids=lambda f: "-".join(map(str, f.values())))
@pytest.mark.often(4)
def test_class_tokens_and_pools(fields):
    """With overlapping patches; a class token makes the pool irrelevant."""
    model, images = TINY.clone(**fields), normal((2, 8, 8, 3))
    variables = random_variables(model, images.shape)
    wanted = jax.jit(functools.partial(explicit_vim, model))(variables["params"], images)
    assert wanted.shape == ((2, 9, 3) if fields.get("pool") == "all" else (2, 3))
    np.testing.assert_allclose(apply(model, variables, images), wanted, atol=2e-5 * np.abs(wanted).max())


# ---- initial values, drop path, precision

def test_initial_values():
    params = drawn(Vim(depth=1, image_size=32, stride=8), (1, 32, 32, 3))
    np.testing.assert_allclose(params["patch_embed"]["kernel"].std(), 768**-0.5, rtol=0.02)
    for name, std in (("pos_embed", 0.02), ("cls_token", 0.02)):
        np.testing.assert_allclose(params[name].std(), std, rtol=0.15)
    np.testing.assert_allclose(params["head"]["kernel"].std(), 0.02, rtol=0.02)
    assert not params["patch_embed"]["bias"].any() and not params["head"]["bias"].any() and (params["norm_f"]["scale"] == 1).all()


@pytest.mark.slow
def test_initial_output_projections_scale_with_depth():
    """U(+-E^-1/2 depth^-1/2) in every block."""
    params = drawn(TINY.clone(depth=4), (1, 8, 8, 3))
    for i in range(4):
        largest = np.abs(params[f"layers_{i}"]["mixer"]["out_proj"]["kernel"]).max()
        assert 0.97 * 40**-0.5 / 2 < largest <= 40**-0.5 / 2


@pytest.mark.parametrize("depth", [1, 2, 24])
def test_drop_path_rates_count_at_the_receiver(depth):
    """The original drops the input of block i at [0, *linspace][i] and the input of the final norm at the full rate."""
    received = [0.0, *np.linspace(0, 0.3, depth)][:depth]
    rates = TINY.clone(depth=depth, drop_path_rate=0.3).drop_path_rates
    np.testing.assert_allclose([0.0, *rates], [*received, 0.3])
    assert len(rates) == depth and (depth == 1 or rates[0] == received[1] == 0)


def test_drop_path_drops_blocks_outputs():
    model = TINY.clone(drop_path_rate=0.5, num_classes=0)
    images = np.repeat(normal((1, 8, 8, 3)), 32, axis=0)
    variables = random_variables(model, (1, 8, 8, 3))
    run = jax.jit(lambda train, key: model.apply(variables, images, train, rngs={"dropout": key}, mutable=["intermediates"])[1], static_argnums=0)
    found = run(True, jax.random.key(0))["intermediates"]
    h = found["layers_0"]["mixer"]["y"][0]
    r = run(False, jax.random.key(0))["intermediates"]["block0_out"][0] - h
    factors = ((found["block0_out"][0] - r) / h).mean((1, 2)).round(3).tolist()
    assert set(factors) == {0.0, 2.0}


def test_half_precision():
    """The residual and the scan stay in float32; with residual_in_fp32=False the residual is bfloat16."""
    images, variables = normal((2, 8, 8, 3)), random_variables(TINY, (1, 8, 8, 3))
    exact = apply(TINY, variables, images)
    logits, recorded = apply(TINY.clone(dtype=jnp.bfloat16), variables, images, mutable=["intermediates"])
    found = recorded["intermediates"]
    assert logits.dtype == jnp.bfloat16 and found["block0_out"][0].dtype == jnp.float32 and found["final_norm"][0].dtype == jnp.bfloat16
    mixer = {name: value[0].dtype for name, value in found["layers_0"]["mixer"].items()}
    assert {name for name, dtype in mixer.items() if dtype == jnp.float32} == {"delta", "A_bar", "s", "A", "D"}
    np.testing.assert_allclose(logits, exact, atol=0.1 * np.abs(exact).max())
    narrow = jax.eval_shape(functools.partial(TINY.clone(dtype=jnp.bfloat16, residual_in_fp32=False).apply, mutable=["intermediates"]), variables, images)
    assert narrow[1]["intermediates"]["block0_out"][0].dtype == jnp.bfloat16


def test_remat():
    """The same logits and recorded states."""
    images, variables = normal((2, 8, 8, 3)), random_variables(TINY, (1, 8, 8, 3))
    (a, found), (b, again) = (apply(model, variables, images, mutable=["intermediates"]) for model in (TINY, TINY.clone(remat=True)))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert jax.tree.structure(found) == jax.tree.structure(again)


def test_fields_of_the_mixers():
    """The fields reach every block: perturbations, backend and stopped gradients."""
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    perturbed = jax.eval_shape(TINY.clone(perturbed=("s",), depth=2).init, jax.random.key(0), images)["perturbations"]
    assert jax.tree.map(lambda x: x.shape, perturbed) == {f"layers_{i}": {"mixer": {"s": (2, 2, 10, 40)}} for i in range(2)}
    with pytest.raises(ValueError, match="'cuda'"):
        jax.eval_shape(TINY.clone(scan_implementation="cuda").init, jax.random.key(0), images)
    images, variables = normal((2, 8, 8, 3)), random_variables(TINY, (1, 8, 8, 3))
    cut = TINY.clone(stop_gradients=("x", "z"))
    gradient = jax.jit(jax.grad(lambda params: cut.apply({"params": params}, images).sum()))(variables["params"])
    mixer = gradient["layers_0"]["mixer"]
    assert not mixer["in_proj"]["kernel"].any() and mixer["A_b_log"].any()


# ---- other image sizes

@pytest.mark.parametrize("class_token,rows", [("middle", [2]), ("head", [0]), ("double", [0, 5]), ("none", [])])
def test_class_rows_are_not_resized(class_token, rows):
    """Only the rows of the grid are resized; class rows keep their values and move to their tokens' new positions."""
    embedding = np.ones((1, 4 + len(rows), 2), np.float32)
    embedding[0, rows] = 7
    resized = np.asarray(vim.resize_positions(embedding, class_token, 3, 5))[0, :, 0]
    expected = np.ones(15 + len(rows))
    expected[list(vim.class_positions(class_token, 15))] = 7
    np.testing.assert_allclose(resized, expected, atol=1e-6)
    np.testing.assert_array_equal(vim.resize_positions(embedding, class_token, 2, 2), embedding)
    if class_token == "middle":     # row 0 as the class row, as in the original's fine-tuning, would put the 7 into the grid
        wrong = np.asarray(vim.resize_positions(embedding, "head", 3, 5))[0, :, 0]
        assert (np.abs(wrong - 1) > 0.1).sum() > 1


def test_other_image_sizes():
    """A larger image equals a model of that size with the embedding resized at conversion; other images need not be square or whole patches."""
    original = {name: 0.1 * normal(shape, seed=i) for i, (name, shape) in enumerate(checkpoints.original_shapes(TINY).items())}
    images, larger = normal((1, 12, 12, 3)), TINY.clone(image_size=12)
    here, there = (apply(model, checkpoints.convert(model, original), images) for model in (TINY, larger))
    np.testing.assert_allclose(here, there, atol=1e-5)
    kept = np.concatenate([original["pos_embed"][:, 4:5], original["pos_embed"][:, :4], original["pos_embed"][:, 5:]], axis=1)
    assert np.abs(apply(larger, checkpoints.convert(larger, {**original, "pos_embed": kept}), images) - there).max() > 1e-4
    shape = jax.eval_shape(TINY.apply, checkpoints.convert(TINY, original), jax.ShapeDtypeStruct((2, 9, 15, 3), jnp.float32)).shape
    assert shape == (2, 3)
    with pytest.raises(ValueError, match=r"pos_embed is \(1, 9, 20\), expected \(1, 10, 20\)"):
        checkpoints.convert(TINY, {**original, "pos_embed": original["pos_embed"][:, 1:]})


# ---- fields, options, weight decay

@pytest.mark.parametrize("fields,shape,words", [
    ({}, (1, 3, 8, 3), "patch_size=4"), ({}, (1, 8, 8, 1), "expected (batch, height, width, 3)"), ({}, (8, 8, 3), "(8, 8, 3)"),
    (dict(class_token="tail"), (1, 8, 8, 3), "class_token='tail'"), (dict(pool="min"), (1, 8, 8, 3), "pool='min'"),
    (dict(drop_path_rate=1.0), (1, 8, 8, 3), "drop_path_rate=1.0"), (dict(image_size=3), (1, 8, 8, 3), "image_size=3"),
    (dict(stride=0), (1, 8, 8, 3), "stride=0"), (dict(depth=0), (1, 8, 8, 3), "depth=0"), (dict(d_state=0), (1, 8, 8, 3), "d_state=0"),
    (dict(stop_gradients=("D",)), (1, 8, 8, 3), "stop_gradients=('D',): expected names among"), (dict(stop_gradients="B"), (1, 8, 8, 3), "stop_gradients='B'"),
    (dict(perturbed=("h",)), (1, 8, 8, 3), "perturbed=('h',): expected names among"),
])
def test_wrong_fields_and_images(fields, shape, words):
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(TINY.clone(**fields).init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert words in str(raised.value)


@pytest.mark.parametrize("options,fields", [
    ({}, dict(class_token="middle", divide_out=True, pos_embed=True, depth=24, drop_path_rate=0.1, residual_in_fp32=True, layer_scale=None)),
    (dict(if_cls_token=False), dict(class_token="none", pool="last")),
    (dict(if_cls_token=False, final_pool_type="max", use_double_cls_token=True), dict(class_token="none", pool="max")),
    (dict(use_double_cls_token=True), dict(class_token="double")), (dict(use_middle_cls_token=False), dict(class_token="head")),
    (dict(if_divide_out=False), dict(divide_out=False)), (dict(if_devide_out=False), dict(divide_out=False)),
    (dict(if_devide_out=True), dict(divide_out=True)), (dict(if_abs_pos_embed=False, stride=8), dict(pos_embed=False, stride=8)),
    (dict(img_size=(64, 64), channels=1, init_layer_scale=0.1), dict(image_size=64, in_channels=1, layer_scale=0.1)),
    (dict(fused_add_norm=False, pt_hw_seq_len=7, residual_in_fp32=False), dict(residual_in_fp32=False)),
])
def test_options(options, fields):
    model = checkpoints.model_from_options("vim", options)
    assert {name: getattr(model, name) for name in fields} == fields


@pytest.mark.parametrize("options,words", [
    (dict(if_rope=True), "if_rope=True: expected False, the only supported"), (dict(if_rope_residual=True), "if_rope_residual=True"), (dict(rms_norm=False), "rms_norm=False"),
    (dict(bimamba_type="v1"), "bimamba_type='v1': expected 'v2', the only supported"), (dict(bimamba_type="none"), "bimamba_type='none'"), (dict(if_bimamba=True), "if_bimamba"),
    (dict(if_bidirectional=True), "if_bidirectional=True"), (dict(flip_img_sequences_ratio=0.5), "flip_img_sequences_ratio=0.5"),
    (dict(drop_rate=0.1), "drop_rate=0.1"), (dict(ssm_cfg={"d_conv": 3}), "ssm_cfg="), (dict(norm_epsilon=1e-6), "norm_epsilon=1e-06"),
    (dict(final_pool_type="avg"), "final_pool_type='avg'"), (dict(final_pool_type="max"), "if_cls_token=True"), (dict(in_chans=3), "in_chans=3: expected options of vim"),
    (dict(img_size=(64, 32)), "img_size=(64, 32)"),
])
def test_unsupported_options(options, words):
    with pytest.raises(ValueError) as raised:
        checkpoints.model_from_options("vim", options)
    assert words in str(raised.value)


def test_weight_decay():
    """The released rule uses shape and name: it decays the scan's A, because the original ignores its marks, and not D."""
    params = golden_models.abstract(TINY)["params"]
    decayed = flatten_dict(weight_decay.mask("released")(params))
    mixer = {"/".join(path[2:]) for path, yes in decayed.items() if yes and path[:2] == ("layers_0", "mixer")}
    assert mixer == {"A_log", "A_b_log", *(f"{name}/kernel" for name in ("in_proj", "out_proj", "conv1d", "conv1d_b", "x_proj", "x_proj_b", "dt_proj",
                                                                         "dt_proj_b"))}
    others = {"/".join(path) for path, yes in decayed.items() if yes and not path[0].startswith("layers_")}
    assert others == {"patch_embed/kernel", "head/kernel"}
    documented = flatten_dict(weight_decay.mask("documented")(params))
    assert {path[-1] for path in decayed if decayed[path] and not documented[path]} == {"A_log", "A_b_log"}
