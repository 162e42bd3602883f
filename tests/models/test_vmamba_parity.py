"""VMamba against golden arrays: logits, gradients of inputs and parameters, and intermediate maps of the original program."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers.golden_models import GOLDEN, load, nhwc
from vmamba_jax import checkpoints

CLASSIFIERS = sorted(p.stem for p in GOLDEN.glob("vmamba_*.json") if not p.stem.startswith(("vmamba_bb", "vmamba_ss2d")))
OFTEN = {"float64": ("vmamba_v0",), "float32": ("vmamba_t_base",)}
CHANNELS_FIRST = ("ln2d", "bn")


def each(dtype):
    """All golden classifiers, those outside OFTEN as slow tests."""
    return [pytest.param(name, marks=() if name in OFTEN[dtype] else pytest.mark.slow) for name in CLASSIFIERS]


def state_dict(arrays, info, dtype=np.float32):
    return {key: arrays[key].astype(dtype) for key in info["state_keys"]}


def run(name, dtype):
    """Logits, recorded states, and the gradients of parameters and images, in one compiled call."""
    arrays, info = load(name)
    model = checkpoints.model_from_options("vmamba", info["config"])
    variables = checkpoints.convert(model, state_dict(arrays, info, dtype))
    images, cotangent = jnp.asarray(nhwc(arrays["input"]), dtype), jnp.asarray(arrays["cotangent"], dtype)

    @jax.jit
    def everything(variables, images):
        def loss(params, images):
            logits, recorded = model.apply({**variables, "params": params}, images, train=False, mutable=["intermediates"])
            return (logits * cotangent).sum(), (logits, recorded["intermediates"])
        (_, (logits, recorded)), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], images)
        return logits, recorded, gradients

    logits, recorded, (params, images_gradient) = everything(variables, images)
    return model, logits, recorded, params, images_gradient


@pytest.mark.parametrize("name", each("float64"))
@pytest.mark.often(1)
def test_float64(x64, name):
    """Logits and input gradient in float64; intermediate maps and parameter gradients against the original's float32 arrays."""
    arrays, info = load(name)
    model, logits, recorded, params, gradient = run(name, np.float64)
    assert logits.dtype == jnp.float64
    np.testing.assert_allclose(logits, arrays["logits_f64"], atol=1e-9)
    np.testing.assert_allclose(gradient, nhwc(arrays["input_grad_f64"]), atol=1e-9)

    to_nhwc = nhwc if info["config"]["norm_layer"] in CHANNELS_FIRST else lambda x: x
    taps = [key for key in arrays if key.startswith("tap/")]
    assert len(taps) >= 10
    for tap in taps:
        ours = tap.removeprefix("tap/").replace("patch_embed", "patch_embed_out")
        found = recorded["layers_0"]["blocks_0"]["op"]["y"] if ours == "stage0_block0_ss2d" else recorded[ours]
        close(found[0], to_nhwc(arrays[tap]), tap)

    gradients = {key.removeprefix("grad/"): arrays[key] for key in arrays if key.startswith("grad/")}
    if gradients:
        buffers = {key: np.zeros_like(arrays[key]) for key in info["state_keys"] if key not in gradients}
        wanted = flatten_dict(checkpoints.convert(model, {**gradients, **buffers})["params"])
        for path, g in flatten_dict(params).items():
            close(g, wanted[path], "/".join(path))


def close(got, wanted, what):
    """Compare up to the float32 rounding of the golden array."""
    np.testing.assert_allclose(got, wanted, atol=2e-5 * max(1, np.abs(wanted).max()), err_msg=what)


@pytest.mark.parametrize("name", each("float32"))
def test_float32(name):
    arrays, info = load(name)
    model = checkpoints.model_from_options("vmamba", info["config"])
    variables = checkpoints.convert(model, state_dict(arrays, info))
    logits, pullback = jax.vjp(jax.jit(lambda images: model.apply(variables, images, train=False)), nhwc(arrays["input"]))
    np.testing.assert_allclose(logits, arrays["logits"], atol=2e-5)
    np.testing.assert_allclose(pullback(arrays["cotangent"])[0], nhwc(arrays["input_grad"]), atol=2e-5)


def test_backbone_maps():
    arrays, info = load("vmamba_bb_ln2d")
    model = checkpoints.model_from_options("vmamba", {**info["config"], "out_indices": info["out_indices"]})
    weights = {key: x for key, x in arrays.items() if key != "input" and not key[-1].isdigit()}
    maps = jax.jit(lambda v, x: model.apply(v, x, train=False))(checkpoints.convert(model, weights), nhwc(arrays["input"]))
    assert len(maps) == 4
    for i, x in enumerate(maps):
        np.testing.assert_allclose(x, nhwc(arrays[f"out{i}"]), atol=2e-5)


@pytest.mark.parametrize("size", [pytest.param("native", marks=pytest.mark.slow), "resized"])
def test_position_embedding(x64, size):
    """Golden arrays of `golden/make_posembed_vmamba.py`, for images of the embedding's size and of another size."""
    arrays, info = load("posembed_vmamba")
    model = checkpoints.model_from_options("vmamba", info["config"])
    variables = checkpoints.convert(model, {key: arrays[key] for key in info["state_dict"]})
    assert model.pos_embed and variables["params"]["pos_embed"].shape == (1, 6, 6, 8)
    images, cotangent = nhwc(arrays[f"{size}.input"]), arrays[f"{size}.cotangent"]

    @jax.jit
    def everything(images, embedding):
        def loss(images, embedding):
            params = {**variables["params"], "pos_embed": embedding}
            logits, recorded = model.apply({"params": params}, images, mutable=["intermediates"])
            return (logits * cotangent).sum(), (logits, recorded["intermediates"])
        return jax.value_and_grad(loss, (0, 1), has_aux=True)(images, embedding)

    (_, (logits, recorded)), gradients = everything(images, variables["params"]["pos_embed"])
    np.testing.assert_allclose(logits, arrays[f"{size}.logits"], atol=1e-9)
    np.testing.assert_allclose(recorded["stage0_blocks"][0], nhwc(arrays[f"{size}.stage0"]), atol=1e-9)
    for name, gradient in zip(("image", "pos_embed"), gradients, strict=True):   # against central differences
        slope = np.vdot(gradient, nhwc(arrays[f"{size}.direction.{name}"]))
        np.testing.assert_allclose(slope, arrays[f"{size}.slope.{name}"], rtol=1e-6, err_msg=name)
