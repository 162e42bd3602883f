"""Sequence classifiers: catalog, layouts, options and names, hidden states, cut gradients, attacks, errors; Adaptive Scaling in VMamba."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import vmamba_jax
from tests.helpers.golden_models import abstract
from tests.helpers.vim_equations import normal, random_variables
from vmamba_jax import attacks, checkpoints, models
from vmamba_jax.checkpoints.convert import reassemble
from vmamba_jax.checkpoints.families import sequence as family
from vmamba_jax.models.sequence import LAYERS, S4, S5, SequenceClassifier, classifier, dss, fields
from vmamba_jax.models.sequence.classifier import OWN_RESIDUAL
from vmamba_jax.models.sequence.convolution import bidirectional, causal
from vmamba_jax.models.vmamba.ss2d import SS2D

TINY = dict(d_model=4, depth=1, d_state=4, hidden=4, z_dim=2, ema_states=2, num_heads=2, max_length=8)
SHAPE = (2, 2, 4, 3)


def tiny(layer, **fields):
    return SequenceClassifier(layer=layer, **{**TINY, **fields})


def variables_of(model, shape=SHAPE):
    return jax.jit(model.init)(jax.random.key(0), np.zeros(shape, np.float32))


def images(shape=SHAPE):
    return np.random.default_rng(0).random(shape, np.float32)


NAMES = [f"{prefix}_{data}" for prefix in ("s4", "dss", "s5", "mega", "mamba", "transformer") for data in ("mnist", "cifar10", "tiny_imagenet")]


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ("s4_mnist", "mega_cifar10") else pytest.mark.slow) for name in NAMES])
def test_parameters(name):
    entry = models.entry(name)
    params = abstract(vmamba_jax.create_model(name), entry.image_size)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == entry.parameters


def test_catalog():
    """Released sizes, under their own names; pixels are not normalized, whatever the channels."""
    assert [name for name in vmamba_jax.list_models() if name in NAMES] == NAMES
    for name in NAMES:
        entry, model = models.entry(name), vmamba_jax.create_model(name)
        assert entry.mean == (0.0,) and entry.std == (1.0,) and model.max_length == entry.image_size**2
        assert (model.depth, model.d_model) == (2 if "mnist" in name else 4, 128)
    assert models.entry("s6_cifar10") is models.entry("mamba_cifar10")
    assert models.as_classifier(tiny("s4", in_channels=1)).mean == (0.0,)
    assert models.as_classifier(tiny("s4")).std == (1.0,)
    ads = vmamba_jax.create_model("dss_mnist", ads="relu")
    extra = sum(x.size for x in jax.tree.leaves(abstract(ads, 28)["params"])) - models.entry("dss_mnist").parameters
    assert extra == 2 * 2 * (128**2 + 128)  # 33,024 a layer, as the paper counts


def test_layouts():
    """"released_view" reads the channels-first tensor as tokens; one channel has one layout."""
    x = np.arange(2 * 3 * 4 * 3).reshape(2, 3, 4, 3)
    np.testing.assert_array_equal(classifier.tokens(x, "raster"), x.reshape(2, 12, 3))
    np.testing.assert_array_equal(classifier.tokens(x, "released_view"), x.transpose(0, 3, 1, 2).reshape(2, 12, 3))
    np.testing.assert_array_equal(classifier.tokens(x[..., :1], "released_view"), classifier.tokens(x[..., :1], "raster"))


def test_convolutions():
    """By the FFT as by their sums."""
    u, k, l = normal((2, 5, 3)), normal((3, 5), 2), normal((3, 5), 3)
    forward = np.array([sum(k[:, t - s] * u[:, s] for s in range(t + 1)) for t in range(5)]).swapaxes(0, 1)
    backward = np.array([sum(l[:, s - t] * u[:, s] for s in range(t, 5)) for t in range(5)]).swapaxes(0, 1)
    np.testing.assert_allclose(jax.jit(causal)(u, k), forward, atol=1e-5)
    np.testing.assert_allclose(jax.jit(bidirectional)(u, k, l), forward + backward, atol=1e-5)


@pytest.mark.parametrize("layer", [pytest.param(name, marks=() if name in ("s4", "s5") else pytest.mark.slow) for name in LAYERS])
def test_conversion_and_back(layer):
    """Released names, their shapes and complex arrays; what `to_state_dict` writes converts to the same variables."""
    model = tiny(layer, ads="tanh", max_length=9)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), abstract(model, 3))
    state_dict = checkpoints.to_state_dict(model, variables)
    assert {name: x.shape for name, x in state_dict.items()} == checkpoints.original_shapes(model)
    jax.tree.map(np.testing.assert_array_equal, checkpoints.convert(model, state_dict), variables)
    leaves, resized = reassemble(model, flatten_dict(variables))  # as the weights of a run are read, in our own layout
    jax.tree.map(np.testing.assert_array_equal, unflatten_dict(leaves), variables)
    assert not resized
    known = {"s4": ("kernel.kernel.C", (1, 4, 2, 2)), "dss": ("kernel.kernel.w", (1, 2, 2)), "s5": ("seq.Lambda", (4,)),
             "mega": ("layers.0.mega_layer.move.delta", (8, 2, 1)), "s6": ("A_log", (8, 4)), "transformer": ("attn.qkv.weight", (12, 4))}
    name, shape = known[layer]
    assert state_dict[f"mapping_layers.0.{name}"].shape == shape
    assert "mapping_layers.0.adss.scale.weight" in state_dict
    if layer == "s5":
        assert state_dict["mapping_layers.0.seq.Lambda"].dtype == np.complex64
    short = {name.replace("mapping_layers.0.", "layer0/").replace("layers.0.", ""): x for name, x in state_dict.items()}
    jax.tree.map(np.testing.assert_array_equal, checkpoints.convert(model, short), variables)
    with pytest.raises(ValueError, match=r"1 missing: norms.0.weight|1 missing: output.weight"):
        checkpoints.convert(model, {name: x for name, x in state_dict.items() if name != ("output.weight" if layer in OWN_RESIDUAL else "norms.0.weight")})


def test_options():
    build = checkpoints.model_from_options
    model = build("s4", dict(d_input=3, n_layers=2, d_state=8, mode="diag", use_AdSS=True, AdSS_Type="sgmd", dropout=0.5, l_max=1, lr=1.0))
    assert (model.layer, model.in_channels, model.depth, model.d_state, model.ads, model.pixel_layout) == ("dss", 3, 2, 8, "sigmoid", "released_view")
    assert build("s4", {}).layer == "s4" and build("s4", {}).d_state == 64 and build("s4", {}).in_channels == 1 and build("dss", {}).layer == "dss"
    assert build("s6", {}).d_state == 16 and build("mega", dict(seq_len=784)).max_length == 784 and build("s5", {}).state_width is None
    assert build("transformer", dict(num_heads=2, pixel_layout="raster")).pixel_layout == "raster"
    for name in family.DEFAULTS:
        with pytest.raises(ValueError, match=rf"depht=3: expected options of {name}: d_input"):
            build(name, dict(depht=3))
    for options, words in ((dict(AdSS_Type="gelu"), "AdSS_Type='gelu': expected one of 'relu', 'sgmd', 'tanh'"),
                           (dict(mode="slow"), "mode='slow': expected one of 'nplr', 'diag'"), (dict(use_lyap=True), "use_lyap=True: expected False"),
                           (dict(pixel_layout="columns"), "pixel_layout='columns': expected one of 'raster', 'released_view'")):
        with pytest.raises(ValueError) as raised:
            build("s4", options)
        assert words in str(raised.value)


@pytest.mark.parametrize("layer,given,shape,words", [
    ("s4", {}, (2, 0, 4, 3), "images.shape=(2, 0, 4, 3): expected sides of at least 1, a sequence of at least one token"),
    ("s4", {}, (2, 3, 2, 4), "images.shape=(2, 3, 2, 4): expected (batch, height, width, 3), from which pixel_layout='raster' makes tokens"),
    ("s4", dict(d_state=5), SHAPE, "d_state=5: expected an even number, because the states are conjugate pairs"),
    ("dss", dict(d_state=7), SHAPE, "d_state=7: expected an even number"), ("s6", dict(d_state=0), SHAPE, "d_state=0: expected an integer >= 1"),
    ("s4", dict(pixel_layout="snake"), SHAPE, "pixel_layout='snake': expected one of 'raster', 'released_view'"),
    ("s7", {}, SHAPE, "layer='s7': expected one of 's4'"), ("s4", dict(ads="gelu"), SHAPE, "ads='gelu': expected one of 'none', 'relu'"),
    ("s4", dict(max_length=7), SHAPE, "max_length=7: expected at least the sequence's 8 tokens"),
    ("mega", dict(max_length=None), SHAPE, "max_length=None: expected the longest sequence"),
    ("transformer", dict(max_length=None), SHAPE, "max_length=None: expected at least the sequence's 8 tokens"),
    ("transformer", dict(num_heads=3), SHAPE, "num_heads=3: expected a divisor of the width 4"),
    ("s4", dict(activation="swish"), SHAPE, "activation='swish': expected one of None, 'silu'"),
    ("s4", dict(stop_gradients=("B",)), SHAPE, "stop_gradients=('B',): expected names among x, s, a, y"),
    ("s6", dict(stop_gradients=("s",)), SHAPE, "stop_gradients=('s',): expected names among x, z, c, B, C"),
    ("s4", dict(stop_blocks=(1,)), SHAPE, "stop_blocks=(1,): expected None"), ("s4", dict(patch_size=3), SHAPE, "expected sides of at least 3"),
])
def test_refusals(layer, given, shape, words):
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(tiny(layer, **given).init, jax.random.key(0), jnp.zeros(shape))
    assert words in str(raised.value)


def test_empty_sequence_of_a_layer():
    with pytest.raises(ValueError, match=r"x.shape=\(1, 0, 4\): expected \(batch, length, channels\) with a length of at least 1"):
        jax.eval_shape(S5().init, jax.random.key(0), jnp.zeros((1, 0, 4)))


@functools.cache
def probed(layer):
    """A tiny model of two layers with random weights, its states, and the input gradient by the cut states, in one compiled call."""
    model = tiny(layer, depth=2, ads="tanh")
    variables = {"constants": abstract_constants(model), **random_variables(model, SHAPE)} if layer == "s4" else random_variables(model, SHAPE)
    names = ("x", "delta") if layer == "s6" else ("x", "y")

    @jax.jit
    def run(variables, x):
        logits, recorded = model.apply(variables, x, mutable=["intermediates", "components"])
        gradient = lambda model: jax.grad(lambda x: (model.apply(variables, x)**2).sum())(x)
        cut = {name: gradient(model.clone(stop_gradients=(name,))) for name in names}
        stopped = {name: model.clone(stop_gradients=(name,)).apply(variables, x) for name in names}
        last = gradient(model.clone(stop_gradients=("x",), stop_blocks=(1,)))
        return logits, recorded, gradient(model), cut, stopped, last
    return model, variables, run(variables, images())


def abstract_constants(model):
    return jax.tree.map(np.asarray, variables_of(model)["constants"])


@pytest.mark.parametrize("layer", ["dss", *(pytest.param(name, marks=pytest.mark.slow) for name in LAYERS if name != "dss")])
def test_states_and_cut_gradients(layer):
    """States are recorded by name, and a cut one changes the gradient but not one bit of the output."""
    model, _, (logits, recorded, full, cut, stopped, last) = probed(layer)
    states = recorded["intermediates"]["layers_0"]
    states = states["mixer"] if layer == "s6" else states
    assert set(LAYERS[layer].STATES) <= set(states)
    assert states["y"][0].shape == (2, 8, 4) and (layer != "s6" or states["delta"][0].shape == (2, 1, 8, 8))
    names = {"s4": {"scan", "ads", "linear"}, "dss": {"scan", "ads", "linear"}, "s5": {"scan", "ads"}, "mega": {"scan", "ads", "attention", "linear"},
             "s6": {"scan", "ads", "linear"}, "transformer": {"attention", "ads", "linear"}}[layer]
    components = recorded["components"]["layers_1"]
    assert set(components["mixer"] if layer == "s6" else components) == {f"component_{name}" for name in names}
    for name in cut:
        np.testing.assert_array_equal(stopped[name], logits)
        assert not np.allclose(cut[name], full, atol=1e-6 * float(np.abs(full).max()))
    assert np.abs(full).max() > 0 and not np.array_equal(last, full) and not np.array_equal(last, cut["x"])
    assert model.depths == (1, 1)


def test_perturbed_state():
    """The gradient of a state's perturbation is that of the state."""
    model = tiny("dss", perturbed=("a",))
    variables, zeros = random_variables(model, SHAPE), {"layers_0": {"a": np.zeros((2, 8, 4), np.float32)}}
    grads = jax.jit(jax.grad(lambda p: model.apply({**variables, "perturbations": p}, images()).sum()))(zeros)
    assert grads["layers_0"]["a"].shape == (2, 8, 4) and np.abs(grads["layers_0"]["a"]).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_under_attack(layer):
    """Initial weights, logits_fn and PGD; a patch embedding and an activation after the layer."""
    model = tiny(layer, patch_size=2, activation="gelu", ads="attention")
    x, labels = images((2, 4, 4, 3)), np.array([0, 1])
    fn = vmamba_jax.logits_fn(model, variables_of(model, x.shape))
    adversarial = attacks.pgd(eps=0.3, steps=2, step_size=0.2)(fn, x, labels, jax.random.key(0))
    assert np.isfinite(fn(adversarial)).all() and np.abs(adversarial - x).max() > 0.1


def test_activation():
    """On the layer's output, before the residual connection."""
    model = tiny("dss", activation="gelu")
    variables = random_variables(model, SHAPE)
    recorded = jax.jit(functools.partial(model.apply, mutable=["components"]))(variables, images())[1]["components"]
    (before, after), y = recorded["component_block0"][0], recorded["layers_0"]["component_linear"][0][1]
    x = before + jax.nn.gelu(y, approximate=False)
    norm = variables["params"]["norms_0"]
    wanted = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(after, wanted, atol=1e-5)


@pytest.mark.slow
def test_every_attack():
    """All gradient attacks and Square on one classifier of the catalog, narrowed."""
    model = vmamba_jax.create_model("s4_mnist", d_model=4, depth=1, d_state=4)
    x, labels = images((2, 28, 28, 1)), np.array([0, 1])
    fn = vmamba_jax.logits_fn(model, variables_of(model, x.shape))
    for attack in (attacks.fgsm(eps=0.1), attacks.momentum_pgd(eps=0.1, steps=2), attacks.apgd(eps=0.1, steps=2), attacks.fab(eps=0.1, steps=2),
                   attacks.square(eps=0.1, queries=4), attacks.frequency_pgd(eps=0.1, steps=2)):
        assert np.isfinite(fn(attack(fn, x, labels, jax.random.key(0)))).all()


def test_initial_values():
    """S4: Re w stays at -0.501 and is no parameter; steps log-uniform; S5 starts from both halves of the spectrum."""
    variables = jax.jit(S4(d_state=8).init)(jax.random.key(0), np.zeros((1, 4, 64), np.float32))
    np.testing.assert_allclose(-np.exp(variables["constants"]["log_w_real"]), -0.501, rtol=1e-6)
    steps = np.exp(variables["params"]["log_dt"])
    assert "log_w_real" not in variables["params"] and 0.00099 < steps.min() < 0.01 < steps.max() < 0.101
    Lambda = jax.jit(S5().init)(jax.random.key(0), np.zeros((1, 4, 6), np.float32))["params"]["Lambda"]
    np.testing.assert_allclose(Lambda[:, 1], -Lambda[::-1, 1], atol=1e-5)
    assert fields.CONSTANTS == "constants" and dss.EPS == 1e-7


def test_adaptive_scaling_in_vmamba():
    """On the merged scan, before the output norm; without it the module has the same parameters as before."""
    x = normal((1, 2, 3, 4))
    plain, scaled = SS2D(), SS2D(ads="relu", out_norm="none")
    variables = random_variables(scaled, x.shape)
    assert "ads" not in random_variables(plain, x.shape)["params"]
    params = variables["params"]
    f = lambda name, s: np.maximum(s @ params["ads"][name]["kernel"] + params["ads"][name]["bias"], 0)

    @jax.jit
    def run(variables, x):
        y, recorded = scaled.apply(variables, x, mutable=["components"])
        return y, recorded["components"]["component_scan"][0][1]
    y, s = run(variables, x)
    np.testing.assert_allclose(y, (f("scale", s) * s + f("bias", s)) @ params["out_proj"]["kernel"], atol=1e-5)
    with pytest.raises(ValueError, match="ads='swish': expected one of 'none', 'relu', 'sigmoid', 'tanh', 'attention'"):
        jax.eval_shape(SS2D(ads="swish").init, jax.random.key(0), jnp.zeros((1, 2, 2, 4)))
    model = vmamba_jax.create_model("vmamba_tiny", dims=(8,), depths=(1,), ads="tanh", num_classes=3)
    assert "layers.0.blocks.0.op.ads.scale.weight" in checkpoints.original_shapes(model)
