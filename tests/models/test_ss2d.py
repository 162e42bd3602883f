"""SS2D: parity with the original module's internals, hidden states as probes, stopped gradients, initial values."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax.core import scan_orders
from vmamba_jax.models import SS2D
from vmamba_jax.models.layers import probes

SHAPE = (2, 3, 5, 8)


def transposed(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def random_variables(module, shape=SHAPE, seed=0):
    """Random variables, none at a special initial value."""
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape)))["params"]
    rng = np.random.default_rng(seed)
    return {"params": jax.tree.map(lambda x: jnp.asarray(0.5 * rng.standard_normal(x.shape), jnp.float32), variables)}


def images(shape=SHAPE, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def apply(module, variables, x, **options):
    return jax.jit(lambda variables, x: module.apply(variables, x, **options))(variables, x)


def gradient(module, variables, x):
    weights = jnp.cos(jnp.arange(x.size)).reshape(x.shape)
    return jax.jit(jax.grad(lambda x: (module.apply(variables, x) * weights).sum()))(x)


@pytest.mark.slow
def test_original_internals(golden):
    arrays = golden("vmamba_ss2d_noz_d1")
    module = SS2D(d_state=1)
    params = {"in_proj": {"kernel": arrays["in_proj.weight"].T}, "out_proj": {"kernel": arrays["out_proj.weight"].T},
              "conv2d": {"kernel": arrays["conv2d.weight"].transpose(2, 3, 1, 0)},
              "out_norm": {"scale": arrays["out_norm.weight"], "bias": arrays["out_norm.bias"]},
              **{name: arrays[name] for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")}}
    x = transposed(arrays["input"])
    y, recorded = apply(module, {"params": params}, x, mutable=["intermediates"])
    found = {name: np.asarray(value[0]) for name, value in recorded["intermediates"].items()}
    np.testing.assert_allclose(y, transposed(arrays["output"]), atol=1e-5)
    np.testing.assert_allclose(found["x"], transposed(arrays["tap/in_proj"]), atol=1e-5)

    routes = scan_orders.routes("cross", 5, 7)
    flat = lambda x: x.reshape(*x.shape[:2], 35, *x.shape[4:])
    for k, route in enumerate(routes):
        in_order = lambda name, k=k, route=route: flat(found[name])[:, k, route]
        by_direction = lambda name, k=k: arrays[name].reshape(2, 4, -1, 35)[:, k].transpose(0, 2, 1)
        np.testing.assert_allclose(in_order("B"), by_direction("tap/Bs"), atol=1e-5)
        np.testing.assert_allclose(in_order("C"), by_direction("tap/Cs"), atol=1e-5)
        bias = arrays["tap/delta_bias"].reshape(4, -1)[k]
        delta = np.log1p(np.exp(by_direction("tap/dts") + bias))
        np.testing.assert_allclose(in_order("delta"), delta, atol=1e-5)
        decay = np.exp(delta[..., None] * -np.exp(arrays["A_logs"]).reshape(4, -1, 1)[k])
        np.testing.assert_allclose(in_order("A_bar"), decay, atol=1e-5)
        np.testing.assert_allclose(in_order("s"), by_direction("tap/ys") if arrays["tap/ys"].ndim == 4 else
                                   arrays["tap/ys"][:, k].reshape(2, -1, 35).transpose(0, 2, 1), atol=2e-5)
    np.testing.assert_allclose(found["s"].sum(1).reshape(2, 35, -1), arrays["tap/y"].transpose(0, 2, 1), atol=2e-5)

    value, pullback = jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x)
    gradients, dx = pullback(transposed(arrays["cotangent"]))
    np.testing.assert_allclose(dx, transposed(arrays["input_grad"]), atol=2e-5)
    for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"):
        scale = max(1, np.abs(arrays[f"grad/{name}"]).max())
        np.testing.assert_allclose(gradients[name], arrays[f"grad/{name}"], atol=2e-5 * scale, err_msg=name)


def test_states_are_recorded_on_request():
    module = SS2D(gate=True)
    x = images()
    variables = jax.jit(lambda: module.init(jax.random.key(0), x))()
    assert set(variables) == {"params"}
    plain = jax.jit(lambda v, x: module.apply(v, x)).lower(variables, x).as_text()
    y, recorded = apply(module, variables, x, mutable=["intermediates"])
    assert set(recorded["intermediates"]) == {*probes.SS2D_STATES, *probes.SCAN_PARAMETERS}
    np.testing.assert_allclose(y, apply(module, variables, x), atol=1e-6)
    probed = jax.jit(lambda v, x: module.apply(v, x, mutable=["intermediates"])).lower(variables, x).as_text()
    assert plain.count("stablehlo.") < probed.count("stablehlo.")


@pytest.mark.parametrize("fields", [
    pytest.param(dict(d_state=3, gate=True), id="gated"),
    pytest.param(dict(ssm="mamba2", dt_rank=2, d_state=3), id="mamba2", marks=pytest.mark.slow),
    pytest.param(dict(), id="plain", marks=pytest.mark.slow), pytest.param(dict(scan_pattern="bidi"), id="bidi", marks=pytest.mark.slow)])
def test_perturbations(x64, fields):
    """A zero perturbation leaves the output as it is, and its gradient matches central differences of the state."""
    module, x = SS2D(**fields), images().astype(jnp.float64)
    variables = jax.tree.map(lambda v: v.astype(jnp.float64), random_variables(module))
    names = tuple(name for name in probes.SS2D_STATES if name != "z" or module.gate)
    wanted = apply(module, variables, x)
    recorded = apply(module, variables, x, mutable=["intermediates"])[1]["intermediates"]
    weights = jnp.cos(jnp.arange(wanted.size)).reshape(wanted.shape)
    opened = module.clone(perturbed=names)
    shapes = jax.eval_shape(lambda: opened.init(jax.random.key(0), x))["perturbations"]
    assert {name: value.shape for name, value in shapes.items()} == {name: recorded[name][0].shape for name in names}
    zeros = {name: jnp.zeros(value.shape) for name, value in shapes.items()}
    run = jax.jit(lambda values: opened.apply({**variables, "perturbations": values}, x))
    np.testing.assert_allclose(run(zeros), wanted, atol=1e-10)
    slopes = jax.jit(jax.grad(lambda values: (opened.apply({**variables, "perturbations": values}, x) * weights).sum()))(zeros)
    for name, zero in zeros.items():
        direction = jnp.sin(jnp.arange(zero.size)).reshape(zero.shape)
        secant = ((run({**zeros, name: 1e-5 * direction}) - run({**zeros, name: -1e-5 * direction})) * weights).sum() / 2e-5
        np.testing.assert_allclose(jnp.vdot(slopes[name], direction), secant, rtol=1e-6, atol=1e-6, err_msg=name)


def explicit(params, x, stop, d_state):
    """SS2D (no gate) from its equations, position by position, with a stop_gradient at the states whose `stop[name]` is true."""
    cut = lambda name, value: jnp.where(stop[name], jax.lax.stop_gradient(value), value)
    b, height, width, _ = x.shape
    u = cut("x", x @ params["in_proj"]["kernel"])
    padded = jnp.pad(u, ((0, 0), (1, 1), (1, 1), (0, 0)))
    u = sum(padded[:, i:i + height, j:j + width] * params["conv2d"]["kernel"][i, j, 0] for i in range(3) for j in range(3))
    u = cut("c", jax.nn.silu(u)).reshape(b, height * width, -1)
    inner, y = u.shape[-1], 0
    for k, route in enumerate(scan_orders.routes("cross", height, width)):
        v = u[:, route]
        p = v @ params["x_proj_weight"][k].T
        rank = p.shape[-1] - 2 * d_state
        B, C = cut("B", p[..., rank:rank + d_state]), cut("C", p[..., rank + d_state:])
        delta = cut("delta", jax.nn.softplus(p[..., :rank] @ params["dt_projs_weight"][k].T + params["dt_projs_bias"][k]))
        A = -jnp.exp(params["A_logs"]).reshape(4, inner, d_state)[k]
        a = cut("A_bar", jnp.exp(delta[..., None] * A))
        inputs = cut("B_bar_delta", delta)[..., None] * B[:, :, None] * v[..., None]
        step = lambda h, ab: (ab[0] * h + ab[1],) * 2
        _, h = jax.lax.scan(step, jnp.zeros((b, inner, d_state)), (a.swapaxes(0, 1), inputs.swapaxes(0, 1)))
        out = (h.swapaxes(0, 1) * C[:, :, None]).sum(-1) + params["Ds"].reshape(4, inner)[k] * v
        y = y + out[:, np.argsort(route)]
    y = y.reshape(b, height, width, inner)
    y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5)
    return (y * params["out_norm"]["scale"] + params["out_norm"]["bias"]) @ params["out_proj"]["kernel"]


@functools.partial(jax.jit, static_argnames="d_state")
def explicit_gradient(params, x, stop, d_state):
    return jax.grad(lambda x: (explicit(params, x, stop, d_state) * jnp.cos(jnp.arange(x.size)).reshape(x.shape)).sum())(x)


@functools.cache
def stoppable(d_state):
    """(module, variables, images, output) of SS2D without stops."""
    module, x = SS2D(d_state=d_state), images()
    variables = random_variables(module)
    return module, variables, x, apply(module, variables, x)


@pytest.mark.parametrize("d_state", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("stop", [(), ("x",), ("c",), ("B",), ("C",), ("delta",), ("A_bar",), ("B_bar_delta",), ("A_bar", "B_bar_delta"),
                                  ("B", "C", "delta"), ("B", "A_bar")], ids="+".join)
@pytest.mark.often(4)
def test_stop_gradients(d_state, stop):
    """The forward pass stays bit-identical; the gradient equals that of the equations with a stop_gradient at the named states."""
    module, variables, x, output = stoppable(d_state)
    stopped = module.clone(stop_gradients=stop)
    np.testing.assert_array_equal(apply(stopped, variables, x), output)
    wanted = explicit_gradient(variables["params"], x, {name: name in stop for name in probes.STOPPABLE}, d_state)
    np.testing.assert_allclose(gradient(stopped, variables, x), wanted, atol=2e-5 * max(1, float(jnp.abs(wanted).max())))
    if stop == ("x",):
        assert not wanted.any()


@pytest.mark.parametrize("fields", [
    dict(gate=True, gate_act=False, out_act=True), dict(scan_pattern="cascade"), dict(ssm="mamba2", dt_rank=2, d_state=4),
    *(pytest.param(fields, marks=pytest.mark.slow) for fields in (dict(out_norm="softmax"), dict(conv_size=5), dict(ssm_init="v1"), dict(ssm_init="v2")))],
    ids=lambda f: "-".join(f))
@pytest.mark.often(1)
def test_default_and_reference_scans_agree(fields):
    module, x = SS2D(**fields), images()
    variables = random_variables(module)
    a, b = (gradient(module.clone(scan_implementation=name), variables, x) for name in ("xla", "reference"))
    np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(jnp.abs(b).max())))


def test_initial_values():
    """v0: step size log-uniform in [0.001, 0.1], decay -1..-N, skip 1; v1 and v2: normal and uniform draws."""
    init = lambda **fields: jax.jit(lambda: SS2D(**fields).init(jax.random.key(0), jnp.zeros((1, 2, 2, 64))))()["params"]
    v0 = init(d_state=4)
    steps = np.log1p(np.exp(v0["dt_projs_bias"]))
    assert steps.min() >= 0.00099 and steps.max() <= 0.101 and 0.007 < np.exp(np.log(steps).mean()) < 0.0145
    np.testing.assert_allclose(np.exp(v0["A_logs"]), np.tile(np.arange(1.0, 5), (256, 1)), rtol=1e-6)
    assert (v0["Ds"] == 1).all() and v0["dt_projs_weight"].shape == (4, 64, 4)
    bound = lambda x: float(np.abs(x).max())
    assert 0.45 < bound(v0["dt_projs_weight"]) <= 0.5 and 0.118 < bound(v0["x_proj_weight"]) <= 0.125
    assert 0.30 < bound(v0["conv2d"]["kernel"]) <= 1 / 3 and abs(float(v0["in_proj"]["kernel"].std()) - 0.02) < 1e-3
    v1, v2 = init(ssm_init="v1"), init(ssm_init="v2")
    assert abs(float(v1["A_logs"].std()) - 1) < 0.15 and abs(float(v1["dt_projs_weight"].std()) - 0.1) < 0.01
    assert not v2["A_logs"].any() and 0 <= v2["dt_projs_bias"].min() and v2["dt_projs_bias"].max() <= 0.1


@pytest.mark.parametrize("fields,words", [
    (dict(stop_gradients=("D",)), "stop_gradients=('D',): expected names among"), (dict(stop_gradients="B"), "stop_gradients='B'"),
    (dict(perturbed=("h",)), "perturbed=('h',): expected names among"), (dict(perturbed=("s",), scan_pattern="cascade"), "perturbed=('s',): expected only x, z, c, y"),
    (dict(out_norm="group"), "out_norm='group'"), (dict(ssm="mamba3"), "ssm='mamba3'"), (dict(ssm_init="v9"), "ssm_init='v9'"),
    (dict(conv_size=4), "conv_size=4"), (dict(ssm_act="tanh"), "'tanh'"), (dict(d_state=0), "d_state=0"),
    (dict(ssm="mamba2", dt_rank=3), "dt_rank=3: expected a number of heads"), (dict(scan_pattern="spiral"), "'spiral'"),
])
def test_refusals(fields, words):
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(functools.partial(SS2D(**fields).init, jax.random.key(0)), jnp.zeros(SHAPE))
    assert words in str(raised.value)
