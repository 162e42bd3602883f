"""Vim's mixer: convolution, hidden states by name, stopped gradients, initial values."""
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers.vim_equations import apply, drawn, explicit_mixer, normal, random_variables
from vmamba_jax.models.layers import probes
from vmamba_jax.models.vim.mixer import VimMixer, causal_conv

MIXER = VimMixer(d_state=2)
TOKENS = (2, 5, 20)


@pytest.mark.parametrize("reverse", [False, True])
def test_causal_conv(reverse):
    x, kernel = normal((1, 6, 3)), normal((4, 3), seed=2)
    wanted = np.zeros_like(x)
    for t in range(6):
        for back in range(4):
            source = t + back if reverse else t - back
            if 0 <= source < 6:
                wanted[:, t] += kernel[3 - back] * x[:, source]
    np.testing.assert_allclose(causal_conv(x, kernel, reverse), wanted, atol=1e-6)


def test_states_are_recorded():
    """Names and shapes, in the order of the tokens, and only on request."""
    x = normal(TOKENS)
    variables = random_variables(MIXER, TOKENS)
    y, recorded = apply(MIXER, variables, x, mutable=["intermediates"])
    found = {name: np.asarray(value[0]) for name, value in recorded["intermediates"].items()}
    sequence, maps = (2, 2, 5, 40), (2, 2, 5, 2)
    assert {name: value.shape for name, value in found.items()} == {
        **dict.fromkeys(("x", "z", "c", "delta", "s"), sequence), "B": maps, "C": maps, "A_bar": (*sequence, 2), "y": TOKENS, "A": (2, 40, 2), "D": (2, 40)}
    assert set(found) == {*probes.VIM_STATES, *probes.SCAN_PARAMETERS}
    np.testing.assert_array_equal(y, found["y"])
    np.testing.assert_allclose(apply(MIXER, variables, x), y, atol=1e-6)
    assert set(jax.eval_shape(lambda: MIXER.init(jax.random.key(0), x))) == {"params"}

    params, N = variables["params"], 2
    np.testing.assert_array_equal(found["x"][:, 0], found["x"][:, 1])
    np.testing.assert_allclose(found["x"][:, 0], (x @ params["in_proj"]["kernel"])[..., :40], atol=1e-5)
    for k, suffix in enumerate(("", "_b")):
        p = found["c"][:, k] @ params[f"x_proj{suffix}"]["kernel"]
        np.testing.assert_allclose(found["B"][:, k], p[..., 2:2 + N], atol=1e-5)
        np.testing.assert_allclose(found["C"][:, k], p[..., 2 + N:], atol=1e-5)
        decay = np.exp(-found["delta"][:, k, ..., None] * np.exp(params[f"A{suffix}_log"]))
        np.testing.assert_allclose(found["A_bar"][:, k], decay, atol=1e-5)
    inputs = found["delta"][..., None] * found["B"][:, :, :, None] * found["c"][..., None]
    for k, first in ((0, 0), (1, -1)):     # at a direction's first token the state is its input
        s = (inputs[:, k, first] * found["C"][:, k, first, None]).sum(-1) + params["D_b" if k else "D"] * found["c"][:, k, first]
        np.testing.assert_allclose(found["s"][:, k, first], s, atol=1e-5)
    gated = (found["s"] * found["z"] / (1 + np.exp(-found["z"]))).sum(1) / 2
    np.testing.assert_allclose(y, gated @ params["out_proj"]["kernel"], atol=1e-5)


@pytest.mark.parametrize("name", probes.VIM_STATES)
@pytest.mark.often(3)
def test_perturbations(x64, name):
    """A zero perturbation leaves the output as it is, and its gradient matches that of the state."""
    x, variables = normal(TOKENS, dtype=np.float64), random_variables(MIXER, TOKENS, np.float64)
    perturbed = MIXER.clone(perturbed=(name,))
    shape = jax.eval_shape(lambda: perturbed.init(jax.random.key(0), x))["perturbations"][name].shape
    weights, direction = np.cos(np.arange(x.size)).reshape(x.shape), np.sin(np.arange(np.prod(shape))).reshape(shape)
    plain = jax.jit(lambda x: MIXER.apply(variables, x))

    @jax.jit
    def run(value):
        def weighted(value):
            y, recorded = perturbed.apply({**variables, "perturbations": {name: value}}, x, mutable=["intermediates"])
            return (y * weights).sum(), (y, recorded["intermediates"][name][0])
        return jax.grad(weighted, has_aux=True)(value)

    gradient, (y, state) = run(np.zeros(shape))
    np.testing.assert_allclose(y, plain(x), atol=1e-10)
    (_, (ahead, moved)), (_, (behind, _)) = run(1e-5 * direction), run(-1e-5 * direction)
    np.testing.assert_allclose(moved - state, 1e-5 * direction, atol=1e-12)
    np.testing.assert_allclose(np.vdot(gradient, direction), ((ahead - behind) * weights).sum() / 2e-5, rtol=1e-6, atol=1e-7)
    assert gradient.any()


STOPS = [("x",), ("z",), ("x", "z"), ("c",), ("B",), ("C",), ("delta",), ("A_bar",), ("B_bar_delta",), ("A_bar", "B_bar_delta")]


@pytest.fixture(scope="module")
def plain_mixer():
    variables, x = random_variables(MIXER, TOKENS), normal(TOKENS)
    return variables, x, apply(MIXER, variables, x)


def slope(call):
    """A jitted gradient, in params and x, of a weighted sum of call(params, x)."""
    weights = np.cos(np.arange(np.prod(TOKENS), dtype=np.float32)).reshape(TOKENS)
    return jax.jit(jax.grad(lambda params, x, *rest: (call(params, x, *rest) * weights).sum(), (0, 1)))


EXPLICIT_SLOPE = slope(explicit_mixer)


@pytest.mark.parametrize("stop,perturbed", [*((stop, ()) for stop in STOPS), (("A_bar",), ("delta",)), (("B_bar_delta",), ("delta",)),
                                            (("A_bar",), ("A_bar",)), (("B_bar_delta",), ("A_bar",))], ids="+".join)
@pytest.mark.often(4)
def test_stop_gradients(plain_mixer, stop, perturbed):
    """The forward pass stays bit-identical; the gradients equal those of the equations with a stop_gradient at the named states."""
    variables, x, wanted = plain_mixer
    stopped = MIXER.clone(stop_gradients=stop, perturbed=perturbed)
    if perturbed:
        zeros = jax.eval_shape(lambda: stopped.init(jax.random.key(0), x))["perturbations"]
        variables = {**variables, "perturbations": jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), zeros)}
    else:
        np.testing.assert_array_equal(apply(stopped, variables, x), wanted)
    params, dx = slope(lambda params, x: stopped.apply({**variables, "params": params}, x))(variables["params"], x)
    wanted_params, wanted_dx = EXPLICIT_SLOPE(variables["params"], x, {name: name in stop for name in probes.STOPPABLE})
    for path, g in flatten_dict(wanted_params).items():
        np.testing.assert_allclose(flatten_dict(params)[path], g, atol=2e-5 * max(1, np.abs(g).max()), err_msg="/".join(path))
    np.testing.assert_allclose(dx, wanted_dx, atol=2e-5)
    assert wanted_dx.any() == (stop != ("x", "z"))


def test_reference_scan_agrees(plain_mixer):
    variables, x, wanted = plain_mixer
    np.testing.assert_allclose(apply(MIXER.clone(scan_implementation="reference"), variables, x), wanted, atol=1e-5)


def test_initial_values():
    mixer = drawn(VimMixer(out_scale=24**-0.5), (1, 5, 192))
    assert not mixer["dt_proj_b"]["bias"].any()                         # reset by the original's general rule
    step = np.log1p(np.exp(mixer["dt_proj"]["bias"]))
    assert 0.00099 < step.min() < 0.002 and 0.05 < step.max() < 0.101 and 0.008 < np.exp(np.log(step).mean()) < 0.0125
    for name, bound in (("in_proj", 192**-0.5), ("x_proj", 384**-0.5), ("x_proj_b", 384**-0.5), ("dt_proj", 12**-0.5), ("dt_proj_b", 12**-0.5),
                        ("conv1d", 0.5), ("conv1d_b", 0.5), ("out_proj", 0.01042)):
        assert 0.98 * bound < np.abs(mixer[name]["kernel"]).max() <= bound, name
    assert all(0.48 < np.abs(mixer[name]["bias"]).max() <= 0.5 for name in ("conv1d", "conv1d_b"))
    for name in ("A_log", "A_b_log"):
        np.testing.assert_allclose(np.exp(mixer[name]), np.broadcast_to(np.arange(1, 17), (384, 16)), rtol=1e-5)
    assert (mixer["D"] == 1).all() and (mixer["D_b"] == 1).all()
