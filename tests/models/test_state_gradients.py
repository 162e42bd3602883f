"""Hidden states with the gradients of the true class's score: against the gradient by hand, and the layouts of VMamba and Vim."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import probed_net
from vmamba_jax import create_model
from vmamba_jax.models import Classifier, state_gradients
from vmamba_jax.models.state_gradients import Probe

LABELS = jnp.array([0, 2, 1])
VMAMBA = create_model("vmamba_tiny", num_classes=3, dims=(4, 8), depths=(1, 2), mlp_ratio=0.0, patch_embed="v1", downsample="v1")
VIM = create_model("vim_tiny", num_classes=3, embed_dim=8, depth=3, image_size=16, patch_size=4, stride=4)


@pytest.fixture(scope="module")
def net():
    images = jnp.asarray(np.random.default_rng(0).random((3, 8, 8, 1)), jnp.float32)
    classifier = probed_net.classifier()
    return classifier, classifier.init(jax.random.key(0), (8, 8, 1)), images


@pytest.mark.parametrize("flat", [False, True])
def test_against_the_gradient_by_hand(net, flat):
    classifier, variables, images = net
    s, g = probed_net.state_and_gradient(variables["params"], images, LABELS)
    logits, found, updates = Probe(probed_net.classifier(flat=flat), ("s",))(variables, images, LABELS)
    state, = found.values()
    assert list(found) == [("s", "")] and state.grid == (4, 4) and not state.class_positions and not updates
    np.testing.assert_allclose(logits, classifier(variables, images), atol=1e-6)
    np.testing.assert_allclose(state.values, s.reshape(3, 1, 16, 5), atol=1e-6)
    np.testing.assert_allclose(state.gradients, g.reshape(3, 1, 16, 5), atol=1e-6)


def test_shares_and_probability(net):
    classifier, variables, images = net
    plain = Probe(classifier, ("s",))(variables, images, LABELS)[1]["s", ""]
    shared = Probe(classifier, ("s",))(variables, images, LABELS, jnp.array([0.5, 0.0, 2.0]))[1]["s", ""]
    np.testing.assert_allclose(shared.gradients, plain.gradients * np.array([0.5, 0, 2]).reshape(3, 1, 1, 1), atol=1e-7)
    params = variables["params"]
    s, _ = probed_net.state_and_gradient(params, images, LABELS)
    probability = lambda s: jnp.take_along_axis(jax.nn.softmax(jnp.tanh(s).mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]),
                                                LABELS[:, None], 1).sum()
    found = Probe(classifier, ("s",), score="probability")(variables, images, LABELS)[1]["s", ""]
    np.testing.assert_allclose(found.gradients.reshape(s.shape), jax.grad(probability)(s), atol=1e-6)


@pytest.mark.parametrize("model,blocks,shapes", [
    (VMAMBA, (0, 2), {("x", 0): (2, 1, 16, 4), ("s", 0): (2, 4, 16, 4), ("x", 2): (2, 1, 4, 8), ("s", 2): (2, 4, 4, 8)}),
    (VIM, (2,), {("x", 2): (2, 2, 17, 16), ("s", 2): (2, 2, 17, 16)})], ids=["vmamba", "vim"])
def test_layouts(model, blocks, shapes):
    """(b, directions, tokens, channels) of the chosen blocks alone; traced, not compiled."""
    classifier, seen = Classifier(model, (0.0,) * 3, (1.0,) * 3), {}

    def run(variables, images, labels):
        _, found, _ = Probe(classifier, ("x", "s"), blocks)(variables, images, labels)
        seen.update({place: (state.grid, state.class_positions) for place, state in found.items()})
        return {f"{name}{block}": (state.values, state.gradients) for (name, block), state in found.items()}
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    found = jax.eval_shape(run, variables, images, jnp.zeros(2, jnp.int32))
    assert {place: found[f"{place[0]}{place[1]}"][i].shape for place in seen for i in (0, 1)} == shapes
    assert set(seen.values()) == ({((4, 4), (8,))} if model is VIM else {((4, 4), ()), ((2, 2), ())})


def test_vims_tokens_are_put_in_raster_order():
    """Token t of the sequence shows patch order[t]; the class token keeps its position."""
    order = tuple(np.random.default_rng(0).permutation(16).tolist())
    model = VIM.clone(scan_pattern=order)
    sequence = np.insert(np.asarray(order, float), 8, -1.0)[None, :, None]
    found = state_gradients._state(model, "y", jnp.asarray(sequence), jnp.asarray(sequence), (1, 16, 16, 3))
    np.testing.assert_array_equal(found.values[0, 0, :, 0], np.insert(np.arange(16.0), 8, -1))


def test_errors(net):
    classifier, variables, images = net
    vim = Classifier(VIM, (0.0,) * 3, (1.0,) * 3)
    for names, blocks, message in ((("q",), None, "expected names among x, z, c"), (("B",), None, "expected names among x, z, c, s, y"),
                                   (("x",), (3,), r"blocks=\(3,\): expected numbers of the model's 3 blocks"), ("xs", None, "names='xs': expected a tuple"),
                                   (("x",), (True,), "expected numbers of the model's 3 blocks")):
        with pytest.raises(ValueError, match=message):
            Probe(vim, names, blocks)
    with pytest.raises(ValueError, match="expected states that the model perturbs: s"):
        Probe(classifier, ("t",))(variables, images, LABELS)
    with pytest.raises(ValueError, match="does not sow it"):
        Probe(probed_net.classifier(named=False), ("s",))(variables, images, LABELS)
    with pytest.raises(ValueError, match="score='loss': expected one of"):
        Probe(vim, ("x",), score="loss")


@pytest.mark.slow
@pytest.mark.parametrize("model", [VMAMBA, VIM], ids=["vmamba", "vim"])
def test_gradients_are_the_slopes_of_the_logit(x64, model):
    """Directional derivatives by central differences of the perturbed model, in float64, for every state of the last block; and memory."""
    classifier = Classifier(model.clone(param_dtype=jnp.float64), (0.0,) * 3, (1.0,) * 3)
    rng, names = np.random.default_rng(0), ("x", "z", "c", "s", "y") if model is VIM else ("x", "c", "s", "y")
    images, labels = jnp.asarray(rng.random((2, 16, 16, 3))), jnp.array([1, 2])
    variables = classifier.init(jax.random.key(0), (16, 16, 3), jnp.float64)
    run = Probe(classifier, names, (2,))
    _, found, _ = jax.jit(lambda v: (0, {f"{n}": s.gradients for (n, _), s in run(v, images, labels)[1].items()}, 0))(variables)
    perturbed = run._perturbed()
    zeros = classifier.__class__(perturbed, classifier.mean, classifier.std)(variables, images, mutable=["perturbations"])[1]["perturbations"]
    logit = jax.jit(lambda p: perturbed.apply({**variables, "perturbations": p}, images)[jnp.arange(2), labels].sum())
    path = ("layers_2", "mixer") if model is VIM else ("layers_1", "blocks_1", "op")
    leaves = zeros[path[0]][path[1]] if model is VIM else zeros[path[0]][path[1]][path[2]]
    for name in names:
        direction = rng.standard_normal(leaves[name].shape)
        nudged = lambda sign, name=name, direction=direction: jax.tree_util.tree_map_with_path(
            lambda at, x: sign * 1e-5 * direction if at[-1].key == name and tuple(k.key for k in at[:-1]) == path else x, zeros)
        slope = (logit(nudged(1)) - logit(nudged(-1))) / 2e-5
        np.testing.assert_allclose((found[name] * direction.reshape(found[name].shape)).sum(), slope, rtol=1e-6, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("model", [VMAMBA, VIM], ids=["vmamba", "vim"])
def test_memory_is_at_most_twice_that_of_an_input_gradient(model):
    classifier = Classifier(model, (0.0,) * 3, (1.0,) * 3)
    variables = classifier.init(jax.random.key(0), (16, 16, 3))
    images, labels = jnp.zeros((16, 16, 16, 3)), jnp.zeros(16, jnp.int32)
    plain = jax.jit(jax.grad(lambda x, v: classifier(v, x)[:, 0].sum())).lower(images, variables).compile()
    states = jax.jit(lambda x, v: [(s.values, s.gradients) for s in Probe(classifier, ("c", "s", "x"), (2,))(v, x, labels)[1].values()])
    states = states.lower(images, variables).compile()
    total = lambda program: (lambda m: m.temp_size_in_bytes + m.output_size_in_bytes)(program.memory_analysis())
    assert total(states) <= 2 * total(plain)
