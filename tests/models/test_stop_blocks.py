"""stop_blocks: the forward pass stays bit-identical, and only the mixers of the chosen blocks are cut from the gradient."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import create_model
from vmamba_jax.models import SS2D
from vmamba_jax.models.layers import probes
from vmamba_jax.models.vim.mixer import VimMixer

MODEL = create_model("vmamba_tiny", num_classes=3, dims=(4, 8), depths=(1, 1), mlp_ratio=0.0, conv_size=0, patch_embed="v1", downsample="v1")
EVERYTHING = ("x", "B", "C", "delta")  # every input of the mixer


def images(seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((2, 16, 16, 3)), jnp.float32)


@pytest.fixture(scope="module")
def variables():
    abstract = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), images()))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape) + 0.1, x.dtype), abstract)


@pytest.fixture(scope="module")
def plain(variables):
    return logits(MODEL, variables), gradient(MODEL, variables)


def logits(model, variables):
    return jax.jit(model.apply)(variables, images())


def gradient(model, variables):
    return jax.jit(jax.grad(lambda x: model.apply(variables, x)[:, 0].sum()))(images())


def stops(**fields):
    """stop_gradients of every mixer, in the order of the calls."""
    found = {}

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, SS2D) and context.method_name == "__call__":
            found[context.module.path[:2]] = tuple(context.module.stop_gradients)
        return next_function(*args, **kwargs)
    with nn.intercept_methods(note):
        jax.eval_shape(MODEL.clone(depths=(2, 1), **fields).init, jax.random.key(0), images())
    return list(found.values())


def test_cut_where_chosen(variables, plain):
    """With every input of a mixer stopped, the gradient equals that with only this mixer's output stopped."""
    stopped = MODEL.clone(stop_gradients=EVERYTHING, stop_blocks=((1, 0),))
    np.testing.assert_array_equal(logits(stopped, variables), plain[0])
    found = gradient(stopped, variables)

    def mixer_cut(next_function, args, kwargs, context):
        y = next_function(*args, **kwargs)
        chosen = isinstance(context.module, SS2D) and context.module.path[:2] == ("layers_1", "blocks_0") and context.method_name == "__call__"
        return jax.lax.stop_gradient(y) if chosen else y
    with nn.intercept_methods(mixer_cut):
        wanted = gradient(MODEL, variables)
    np.testing.assert_allclose(found, wanted, atol=1e-6 * float(jnp.abs(wanted).max()))
    assert np.abs(found - plain[1]).max() > 1e-3 * np.abs(plain[1]).max()


@pytest.mark.parametrize(("blocks", "cut"), [
    (None, [1, 1, 1]), ((), [0, 0, 0]), ((0,), [1, 1, 0]), (((0, 1), 1), [0, 1, 1]), (((0, 0), [0, 1], (1, 0)), [1, 1, 1]),
], ids=str)
def test_which_blocks_are_cut(blocks, cut):
    assert stops(stop_gradients=("B", "C"), stop_blocks=blocks) == [("B", "C") if chosen else () for chosen in cut]


def test_one_state_in_one_block_keeps_the_logits(variables, plain):
    for name, stage in (("B", 0), ("A_bar", 1)):
        np.testing.assert_array_equal(logits(MODEL.clone(stop_gradients=(name,), stop_blocks=(stage,)), variables), plain[0])


@pytest.mark.parametrize(("blocks", "cut"), [(None, [1, 1]), ((), [0, 0]), ((1,), [0, 1])], ids=str)
def test_vim_cuts_blocks_by_number(blocks, cut):
    model, seen = create_model("vim_tiny", depth=2, embed_dim=8, num_classes=3, stop_gradients=("B",), stop_blocks=blocks), {}

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, VimMixer) and context.method_name == "__call__":
            seen[context.module.path[0]] = context.module.stop_gradients
        return next_function(*args, **kwargs)
    with nn.intercept_methods(note):
        jax.eval_shape(model.init, jax.random.key(0), images())
    assert [seen[f"layers_{i}"] for i in range(2)] == [("B",) if chosen else () for chosen in cut]


@pytest.mark.parametrize("blocks", [((0, 1),), ((2, 0),), (2,), ((0, 0, 0),), 0, "all", ((0, [1]),), (None,)], ids=repr)
def test_refusals(blocks):
    model = MODEL.clone(stop_blocks=blocks)
    with pytest.raises(ValueError, match=r"stop_blocks=.*expected .*depths=\(1, 1\)"):
        probes.chosen_blocks("stop_blocks", blocks, model.depths)


def test_names_are_checked_without_blocks():
    model = MODEL.clone(stop_gradients=("A",), stop_blocks=())
    with pytest.raises(ValueError, match=r"stop_gradients=\('A',\): expected names among"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images()))
