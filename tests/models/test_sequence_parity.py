"""Sequence layers and classifiers against golden arrays of the released code, and against plain loops."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.golden_models import GOLDEN
from vmamba_jax import checkpoints
from vmamba_jax.models.sequence import S5, AdaptiveScaling, Mamba, Mega, dss, hippo, s4

MODELS = sorted(p.stem for p in GOLDEN.glob("ads_model_*.npz"))
OFTEN = {("ads_model_s4_relu", "float64"), ("ads_model_dss_tanh", "float32")}
TOLERANCE = {"float64": 1e-9, "float32": 2e-5}
BOTH = pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])


@pytest.fixture
def precision(request, dtype):
    """A function that casts golden arrays to the test's precision, which is on."""
    if dtype == "float64":
        request.getfixturevalue("x64")
    kinds = {"f": np.dtype(dtype), "c": np.result_type(dtype, np.complex64)}
    return lambda x: x.astype(kinds.get(x.dtype.kind, x.dtype))


def close(found, wanted, dtype):
    assert found.dtype == dtype
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(wanted).max()))


def pairs(x):
    return np.stack([x.real, x.imag], -1)


def state_dict(arrays, cast=lambda x: x):
    return {name: cast(x) for name, x in arrays.items() if name.startswith(("top/", "layer0/", "layer1/"))}


def model_of(name):
    _, _, layer, kind = name.split("_")
    options = dict(d_input=3, d_model=8, n_layers=2, d_state=8) | (dict(use_AdSS=True, AdSS_Type=kind) if kind != "none" else {})
    return checkpoints.model_from_options(layer, options)


@functools.partial(jax.jit, static_argnums=0)
def run(model, variables, images, labels):
    """Logits, input gradient of the mean cross entropy, first layer's output, logits of the raster layout."""
    def loss(images):
        logits, recorded = model.apply(variables, images, mutable=["intermediates"])
        return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean(), logits
    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(images)
    return logits, gradient, model.clone(pixel_layout="raster").apply(variables, images)


@pytest.mark.parametrize("name,dtype", [pytest.param(name, dtype, marks=() if (name, dtype) in OFTEN else pytest.mark.slow)
                                        for name in MODELS for dtype in TOLERANCE])
def test_model(golden, precision, name, dtype):
    arrays, model = golden(name), model_of(name)
    variables = checkpoints.convert(model, state_dict(arrays, precision))
    logits, gradient, raster = run(model, variables, precision(arrays["x"]).transpose(0, 2, 3, 1), arrays["labels"])
    close(logits, arrays["logits"], dtype)
    close(raster, arrays["logits_unscrambled"], dtype)
    scale = np.abs(arrays["input_grad"]).max()
    close(gradient.transpose(0, 3, 1, 2) / scale, arrays["input_grad"] / scale, dtype)
    np.testing.assert_allclose(logits, arrays["released_f32_logits"], atol=2e-5)


@pytest.mark.parametrize("name,dtype", [("ads_model_s4_relu", "float32"), ("ads_model_dss_tanh", "float64"),
                                        *(pytest.param(name, dtype, marks=pytest.mark.slow) for name, dtype in (("ads_model_s4_relu", "float64"),
                                                                                                                ("ads_model_dss_tanh", "float32")))])
def test_layer(golden, precision, name, dtype):
    """The first layer's kernel, and its output with Adaptive Scaling."""
    arrays, model = golden(name), model_of(name)
    params = checkpoints.convert(model, state_dict(arrays, precision))
    layer = {collection: tree["layers_0"] for collection, tree in params.items() if "layers_0" in tree}
    module = {"s4": s4.S4, "dss": dss.DSS}[model.layer](d_state=8, ads=model.ads)
    y, recorded = jax.jit(functools.partial(module.apply, mutable=["intermediates"]))(layer, precision(arrays["layer_in"]))
    close(recorded["intermediates"]["kernel"][0], arrays["layer0/kernel_L20"], dtype)
    close(y, arrays["layer0_out"], dtype)


@pytest.mark.parametrize("kind,dtype", [("relu", "float64"), ("sgmd", "float64"), ("tanh", "float64"), ("tanh", "float32")])
def test_adaptive_scaling(golden, precision, kind, dtype):
    """Output and all gradients."""
    arrays = {name: precision(x) for name, x in golden("ads_module").items()}
    params = {name: {"kernel": arrays[f"{name}_w"].T, "bias": arrays[f"{name}_b"]} for name in ("scale", "bias")}
    @jax.jit
    def run(params, x, cotangent):
        y, pullback = jax.vjp(lambda params, x: AdaptiveScaling(kind).apply({"params": params}, x), params, x)
        return y, *pullback(cotangent)
    y, gradients, dx = run(params, arrays["x"], arrays["cotangent"])
    close(y, arrays[f"{kind}/y"], dtype)
    close(dx, arrays[f"{kind}/dx"], dtype)
    for name in ("scale", "bias"):
        close(gradients[name]["kernel"].T, arrays[f"{kind}/d{name}_w"], dtype)
        close(gradients[name]["bias"], arrays[f"{kind}/d{name}_b"], dtype)


@BOTH
def test_s5(golden, precision, dtype):
    arrays = {name: precision(x) for name, x in golden("ads_s5_layer").items()}
    params = dict(Lambda=pairs(arrays["Lam"]), B=pairs(arrays["B"]), C=pairs(arrays["C"]), D=arrays["Dv"], log_step=arrays["log_step"])
    close(jax.jit(S5().apply)({"params": params}, arrays["u"]), golden("ads_s5_layer")["y"], dtype)


@BOTH
def test_mega(golden, precision, dtype):
    """The layer and its moving average, from the released names."""
    arrays = golden("ads_mega_layer")
    model = checkpoints.model_from_options("mega", dict(d_model=6, n_layers=1, hidden_dim=10, seq_len=12, z_dim=4, n_dim=3))
    weights = {name.replace("w/", "mapping_layers.0.layers.0."): precision(x) for name, x in arrays.items() if name.startswith("w/")}
    rest = {name: np.zeros(shape, dtype) for name, shape in checkpoints.original_shapes(model).items() if name.startswith(("input.", "output."))}
    variables = checkpoints.convert(model, weights | rest)
    layer = Mega(max_length=12, hidden=10, z_dim=4, ema_states=3)
    apply = jax.jit(functools.partial(layer.apply, mutable=["intermediates"]))
    y, recorded = apply({"params": variables["params"]["layers_0"]}, precision(arrays["x"]))
    close(y, arrays["y"], dtype)
    close(jax.nn.silu(recorded["intermediates"]["s"][0]), arrays["ema_out"], dtype)


def test_hippo(golden):
    """The released initialization, in float32; the phase of an eigenvector is free, so P conj(B) is compared as well."""
    w, P, B = hippo.low_rank_form(8)
    arrays = golden("ads_hippo_init_N8")
    for found, name in ((w, "w"), (P, "P"), (B, "B")):
        np.testing.assert_allclose(found, arrays[name].reshape(4), atol=2e-5)
    A, B0, P0 = hippo.legs(16)
    w, P, B = hippo.low_rank_form(16)
    # the transfer function does not depend on the basis
    z = 0.3 + 2j
    resolvent = lambda a, b: (a.conj() * b / (z - w)).sum() + (a * b.conj() / (z - w.conj())).sum()
    wanted = B0 @ np.linalg.solve(z * np.eye(16) - A, B0)
    np.testing.assert_allclose(resolvent(B, B) - resolvent(B, P) * resolvent(P, B) / (1 + resolvent(P, P)), wanted, rtol=1e-9)


def test_s4_kernel_is_the_recurrence(x64):
    """Kernel of the stored C (I - Abar^L) = C Abar^k Bbar for every k < L, with dense linear algebra."""
    rng = np.random.default_rng(0)
    w, P, B = hippo.low_rank_form(6)
    C, dt = rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3)), np.array([0.03, 0.4])
    kernel = jax.jit(lambda w, P, B, C, dt: s4.kernel(w, P, B, s4.truncate(C, w, P, dt, 16), dt, 16))(w, P, B, C, dt)
    full = lambda x: np.concatenate([x, x.conj()], -1)
    A = np.diag(full(w)) - np.outer(full(P), full(P).conj())
    for h in range(2):
        inverse = np.linalg.inv(np.eye(6) - dt[h] / 2 * A)
        A_bar, B_bar = inverse @ (np.eye(6) + dt[h] / 2 * A), dt[h] * inverse @ full(B)
        wanted = [(full(C[h]) @ np.linalg.matrix_power(A_bar, k) @ B_bar).real for k in range(16)]
        np.testing.assert_allclose(kernel[h], wanted, atol=1e-12)


def test_dss_kernel_where_the_real_part_is_positive(x64):
    """w of either sign: the softmax form with plain exponentials, and no overflow of a growing one."""
    w, dt, length = np.array([-0.4 + 2j, 0.7 - 1j]), np.array([0.1, 0.5]), 9
    C = np.array([[1 + 2j, -0.5j], [0.3, 1 - 1j]])
    q = w * np.expm1(dt[:, None] * w * length)
    plain = np.einsum("hn,hnl->hl", C * np.expm1(dt[:, None] * w) / q, np.exp((dt[:, None] * w)[..., None] * np.arange(length))).real
    kernel = jax.jit(dss.kernel, static_argnums=3)
    np.testing.assert_allclose(kernel(w, C, dt, length), plain, atol=1e-5)
    assert np.isfinite(kernel(w * 1e4, C, dt, length)).all()


def test_mamba_is_the_recurrence():
    """The mixer against a plain loop over the steps."""
    u = np.random.default_rng(0).standard_normal((1, 5, 4)).astype(np.float32)
    layer = Mamba(d_state=3, ads="relu")
    params = jax.tree.map(np.asarray, jax.jit(layer.init)(jax.random.key(0), u)["params"]["mixer"])
    silu, sigma = lambda x: x / (1 + np.exp(-x)), lambda x: np.log1p(np.exp(x))
    x, z = np.split(u[0] @ params["in_proj"]["kernel"], 2, -1)
    padded, taps = np.pad(x, ((3, 0), (0, 0))), params["conv1d"]["kernel"][:, 0]
    c = silu(sum(padded[i:i + 5] * taps[i] for i in range(4)) + params["conv1d"]["bias"])
    dt, B, C = np.split(c @ params["x_proj"]["kernel"], [1, 4], -1)
    dt = sigma(dt @ params["dt_proj"]["kernel"] + params["dt_proj"]["bias"])
    h, A, wanted = np.zeros((8, 3)), -np.exp(params["A_log"]), []
    for t in range(5):
        h = np.exp(dt[t][:, None] * A) * h + dt[t][:, None] * B[t] * c[t][:, None]
        s = h @ C[t] + params["D"] * c[t]
        f = [np.maximum(s @ params["ads"][name]["kernel"] + params["ads"][name]["bias"], 0) for name in ("scale", "bias")]
        wanted.append((f[0] * s + f[1]) * silu(z[t]) @ params["out_proj"]["kernel"])
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": {"mixer": params}}, u)[0], wanted, atol=1e-6)
