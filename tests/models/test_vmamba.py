"""VMamba beyond parity: image sizes, precision, rematerialization, drop path, scan orders, position embedding, and the layers' traps."""
import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import create_model
from vmamba_jax.models import SS2D, VMamba, VSSBlock
from vmamba_jax.models.layers import common
from vmamba_jax.models.vmamba.ss2d import SSMFields

TINY = dict(num_classes=5, dims=(8, 16), depths=(1, 1))


def variables_of(model, shape=(32, 32, 3), seed=0):
    x = jnp.zeros((1, *shape))
    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape) + 0.1, x.dtype), abstract)


def images(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def logits(model, variables, x, **options):
    return jax.jit(lambda variables, x: model.apply(variables, x, **options))(variables, x)


@pytest.mark.parametrize("height,width", [(32, 32), (33, 47), (8, 20), (4, 4), (1, 5)])
@pytest.mark.parametrize("downsample", ["v1", "v3"])
def test_any_size(height, width, downsample):
    """ceil(n / 2) at every halving, for rectangular images and odd sides too."""
    model = create_model("vmamba_tiny", **TINY, downsample=downsample)
    maps = jax.eval_shape(lambda v, x: model.clone(out_indices=(0, 1)).init_with_output(jax.random.key(0), x)[0],
                          None, jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32))
    half = lambda n: -(-n // 2)
    sides = [(half(half(height)), half(half(width)))]
    sides.append((half(sides[0][0]), half(sides[0][1])))
    assert [m.shape for m in maps] == [(2, *side, dim) for side, dim in zip(sides, (8, 16), strict=True)]


def test_batch_entries_do_not_mix():
    model = create_model("vmamba_tiny", **TINY)
    variables, x = variables_of(model), images(3, 12, 20, 3)
    whole = logits(model, variables, x)
    assert whole.shape == (3, 5)
    np.testing.assert_allclose(logits(model, variables, x[1:2]), whole[1:2], atol=1e-5)


@pytest.mark.slow
def test_bfloat16_scans_in_float32():
    model = create_model("vmamba_tiny", **TINY)
    variables, x = variables_of(model), images(2, 16, 16, 3)
    narrow = model.clone(dtype=jnp.bfloat16)
    wanted, found = logits(model, variables, x), logits(narrow, variables, x)
    assert found.dtype == jnp.bfloat16
    assert np.abs(found.astype(jnp.float32) - wanted).max() < 0.05 * np.abs(wanted).max()
    text = jax.jit(lambda v, x: narrow.apply(v, x)).lower(variables, x).as_text()
    softplus = [line for line in text.splitlines() if "stablehlo.log_plus_one" in line]
    decays = [line for line in text.splitlines() if "stablehlo.exponential " in line and re.search(r"tensor<2x(8|16)x[a-z]+\d+>", line)]
    # float32 in both blocks; on a square map the two forward directions share one function of the program, the two backward ones another
    assert len(softplus) == len(decays) == 4 and all("xf32>" in line for line in softplus + decays)
    assert [line for line in text.splitlines() if "dot_general" in line and "xbf16>" in line]   # projections: bfloat16
    grads = jax.jit(jax.grad(lambda v: narrow.apply(v, x).astype(jnp.float32).sum()))(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_remat_keeps_the_numbers():
    model = create_model("vmamba_tiny", **TINY, gate=True)
    variables, x = variables_of(model), images(2, 16, 16, 3)
    gradient = lambda model: jax.jit(jax.grad(lambda x: model.apply(variables, x).sum()))
    np.testing.assert_allclose(gradient(model.clone(remat=True))(x), gradient(model)(x), rtol=1e-5, atol=1e-6)
    compiled = gradient(model.clone(remat=True)).lower(x).as_text()
    assert compiled.count("stablehlo.while") > gradient(model).lower(x).as_text().count("stablehlo.while")


def test_drop_path_needs_training_and_a_key():
    model = create_model("vmamba_tiny", **TINY, drop_path_rate=0.9)
    variables, images_ = variables_of(model), images(8, 16, 16, 3)
    train = lambda seed: logits(model, variables, images_, train=True, rngs={"dropout": jax.random.key(seed)})
    assert not np.allclose(train(0), train(1))
    assert not np.allclose(train(0), logits(model, variables, images_, train=False))
    with pytest.raises(Exception, match="dropout"):
        logits(model, variables, images_, train=True)


def test_ssm_fields_reach_every_mixer():
    """Every shared field, at a value that is not its default, arrives in the blocks and their mixers."""
    fields = dict(ssm="mamba2", d_state=3, ssm_ratio=2.0, dt_rank=2, ssm_act="gelu", conv_size=5, conv_bias=True, gate=True, gate_act=False,
                  out_act=True, out_norm="softmax", scan_pattern="bidi", ssm_init="v2", ads="tanh", stop_gradients=("B",), perturbed=("y",),
                  scan_implementation="xla", dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert fields.keys() == {field.name for field in dataclasses.fields(SSMFields)}
    assert all(fields[field.name] != field.default for field in dataclasses.fields(SSMFields))
    found = []

    def note(call, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(context.module, SSMFields):
            found.append((type(context.module), context.module.ssm_fields()))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(create_model("vmamba_tiny", **TINY, **fields).init, jax.random.key(0), images(1, 16, 16, 3))
    assert [kind for kind, _ in found] == [VMamba, VSSBlock, SS2D, VSSBlock, SS2D]
    assert all(passed == fields for _, passed in found)


def test_batch_norm_updates_in_training_only():
    model = create_model("vmamba_tiny", **TINY, norm="batch_norm", drop_path_rate=0.0)
    variables, x = variables_of(model), images(4, 16, 16, 3)
    _, updates = logits(model, variables, x, train=True, mutable=["batch_stats"])
    before, after = variables["batch_stats"]["patch_embed"]["norm1"], updates["batch_stats"]["patch_embed"]["norm1"]
    stem = jax.lax.conv_general_dilated(x, variables["params"]["patch_embed"]["conv1"]["kernel"], (2, 2), ((1, 1), (1, 1)),
                                        dimension_numbers=("NHWC", "HWIO", "NHWC")) + variables["params"]["patch_embed"]["conv1"]["bias"]
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * stem.mean((0, 1, 2)), atol=1e-5)


def test_scan_order_permutes_the_map():
    """Without a convolution, a scan in another order equals the cross scan of the permuted map, permuted back."""
    order = np.random.default_rng(0).permutation(12)
    module = SS2D(conv_size=0)
    x = images(2, 3, 4, 8)
    variables = jax.jit(lambda: module.init(jax.random.key(0), x))()
    run = jax.jit(lambda x, module: module.apply(variables, x), static_argnums=1)
    permuted = run(x.reshape(2, 12, 8)[:, order].reshape(x.shape), module).reshape(2, 12, 8)
    reordered = run(x, module.clone(scan_pattern=tuple(order.tolist()))).reshape(2, 12, 8)
    np.testing.assert_allclose(reordered[:, order], permuted, atol=1e-5)
    model = create_model("vmamba_tiny", **TINY, scan_pattern=lambda h, w: np.arange(h * w)[::-1])
    v = variables_of(model)
    assert not np.allclose(logits(model, v, images(1, 16, 16, 3)), logits(model.clone(scan_pattern="cross"), v, images(1, 16, 16, 3)))


@pytest.mark.slow
def test_stop_gradients():
    """Logits stay bit-identical; with every state cut, only the residual paths carry a gradient to the input."""
    model = create_model("vmamba_tiny", **TINY, mlp_ratio=0.0)
    variables, x = variables_of(model), images(2, 16, 16, 3)
    stopped = model.clone(stop_gradients=("x", "B", "C", "delta"))
    np.testing.assert_array_equal(logits(stopped, variables, x), logits(model, variables, x))
    gradient = lambda model, variables: jax.jit(jax.grad(lambda v, x: model.apply(v, x)[:, 0].sum(), 1))(variables, x)
    assert not np.allclose(gradient(stopped, variables), gradient(model, variables))

    def mixer_cut(next_function, args, kwargs, context):
        y = next_function(*args, **kwargs)
        return jax.lax.stop_gradient(y) if isinstance(context.module, SS2D) and context.method_name == "__call__" else y

    with nn.intercept_methods(mixer_cut):
        wanted = gradient(model, variables)
    np.testing.assert_allclose(gradient(stopped, variables), wanted, atol=1e-6)


@pytest.mark.slow
def test_second_derivatives():
    model = create_model("vmamba_tiny", **TINY)
    variables, x = variables_of(model), images(1, 8, 8, 3)
    direction = images(1, 8, 8, 3, seed=5)
    score = lambda x, model=model: jnp.sin(model.apply(variables, x)).sum()
    slope = jax.jit(jax.grad(lambda x: jnp.vdot(jax.grad(score)(x), direction)))(x)
    reference = model.clone(scan_implementation="reference")
    wanted = jax.jit(lambda x: jax.jvp(jax.grad(lambda x: score(x, reference)), (x,), (direction,))[1])(x)   # forward over reverse
    np.testing.assert_allclose(slope, wanted, atol=1e-4 * float(jnp.abs(wanted).max()))


@pytest.mark.parametrize("name,exact", [("gelu", lambda x: jax.nn.gelu(x, approximate=False)), ("silu", jax.nn.silu)])
def test_activations_and_their_derivatives(x64, name, exact):
    x = jnp.linspace(-6, 6, 101, dtype=jnp.float64)
    f = common.activation(name)
    np.testing.assert_allclose(f(x), exact(x), atol=1e-12)
    for order in (jax.grad, lambda f: jax.grad(jax.grad(f)), lambda f: jax.jacfwd(jax.grad(f))):
        np.testing.assert_allclose(jax.vmap(order(f))(x), jax.vmap(order(exact))(x), atol=1e-10)
    assert np.abs(f(x) - jax.nn.gelu(x, approximate=True)).max() > 1e-4


@pytest.mark.slow
def test_layer_norm(x64):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 7)))
    plain = lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(common.standardize(x), plain(x), atol=1e-12)
    g = lambda f: jax.grad(lambda x: (jnp.sin(f(x)) * jnp.arange(7.0)).sum())
    np.testing.assert_allclose(g(common.standardize)(x), g(plain)(x), atol=1e-10)
    hessian = lambda f: jax.hessian(lambda x: (jnp.sin(f(x)) * jnp.arange(7.0)).sum())(x[0])
    np.testing.assert_allclose(hessian(common.standardize), hessian(plain), atol=1e-9)
    tiny = 1e-3 * x   # small enough that eps 1e-6 would return other values
    assert np.abs(common.standardize(tiny) - (tiny - tiny.mean(-1, keepdims=True)) / jnp.sqrt(tiny.var(-1, keepdims=True) + 1e-6)).max() > 0.1


@pytest.mark.parametrize("height,width", [pytest.param(16, 16, marks=pytest.mark.slow), (24, 20)])
def test_position_embedding(height, width):
    """A constant added to the embedding equals one added to the patch norm's bias, also after resizing; a change of one row changes the logits."""
    model = create_model("vmamba_tiny", **TINY, pos_embed=True, image_size=16)
    variables, x = variables_of(model, (16, 16, 3)), images(1, height, width, 3)
    params = variables["params"]
    assert params["pos_embed"].shape == (1, 4, 4, 8)
    offset = jnp.linspace(-1, 1, 8)
    shifted = {**params, "pos_embed": params["pos_embed"] + offset}
    norm2 = params["patch_embed"]["norm2"]
    biased = {**params, "patch_embed": {**params["patch_embed"], "norm2": {**norm2, "bias": norm2["bias"] + offset}}}
    of = lambda params: logits(model, {"params": params}, x)
    np.testing.assert_allclose(of(shifted), of(biased), rtol=1e-4, atol=1e-5)
    assert np.abs(of(shifted) - of(params)).max() > 1e-2
    assert np.abs(of({**params, "pos_embed": params["pos_embed"].at[:, 0].add(1.0)}) - of(params)).max() > 1e-3


@pytest.mark.parametrize("fields,shape,words", [
    (dict(), (1, 32, 32, 1), "images.shape=(1, 32, 32, 1)"), (dict(), (32, 32, 3), "images.shape=(32, 32, 3)"),
    (dict(depths=(1,)), (1, 32, 32, 3), "depths=(1,)"), (dict(patch_embed="v3"), (1, 32, 32, 3), "patch_embed='v3'"),
    (dict(downsample="v4"), (1, 32, 32, 3), "downsample='v4'"), (dict(norm="gn"), (1, 32, 32, 3), "norm='gn'"),
    (dict(drop_path_rate=1.0), (1, 32, 32, 3), "drop_path_rate=1.0"), (dict(out_indices=(2,)), (1, 32, 32, 3), "out_indices=(2,)"),
    (dict(patch_size=8), (1, 32, 32, 3), "patch_size=8"), (dict(patch_embed="v1", downsample="v2"), (1, 4, 4, 3), "sides of at least 8"),
])
def test_refusals(fields, shape, words):
    model = create_model("vmamba_tiny", **{**TINY, **fields})
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape)))
    assert words in str(raised.value)
