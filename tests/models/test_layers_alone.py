"""Parts of VMamba and Vim as layers of other networks: shapes, width, weights of a stage, NNX, and the examples of docs/models.md."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import doc_examples
from vmamba_jax import create_model, models

MAP, SEQUENCE = (2, 3, 5, 8), (2, 7, 8)
LAYERS = {"SS2D": (models.SS2D, MAP), "VSSBlock": (models.VSSBlock, MAP), "VSSStage": (models.VSSStage, MAP), "VimMixer": (models.VimMixer, SEQUENCE),
          "VimBlock": (models.VimBlock, SEQUENCE)}
NET, ALONE, NNX, _ = doc_examples.blocks("models.md")      # the last is run by test_cost


@pytest.mark.parametrize("name", LAYERS)
def test_width_comes_first_and_is_checked(name):
    layer, shape = LAYERS[name]
    with_any, with_eight = (jax.eval_shape(make().init_with_output, jax.random.key(0), jnp.zeros(shape)) for make in (layer, lambda: layer(8)))
    assert jax.tree.map(jnp.shape, with_any) == jax.tree.map(jnp.shape, with_eight) and with_any[0].shape == shape
    wide = (*shape[:-1], 9)
    axes = "batch, height, width" if len(shape) == 4 else "batch, length"
    for x, expected in ((jnp.zeros(wide), rf"x.shape=\({', '.join(map(str, wide))}\): expected \({axes}, 8\)"), (jnp.zeros(shape[1:]), rf"expected \({axes}, 8\)")):
        with pytest.raises(ValueError, match=expected):
            jax.eval_shape(layer(8).init, jax.random.key(0), x)


def test_patch_layers_have_defaults():
    shapes = lambda layer, shape: jax.eval_shape(layer.init_with_output, jax.random.key(0), jnp.zeros(shape))[0].shape
    assert shapes(models.PatchEmbed(6), (1, 9, 16, 3)) == (1, 3, 4, 6) and shapes(models.Downsample(6), (1, 9, 16, 3)) == (1, 5, 8, 6)
    for layer in (models.PatchEmbed(6, version="v3"), models.Downsample(6, version="v4")):
        with pytest.raises(ValueError, match="version='v[34]': expected one of 'v1'"):
            shapes(layer, (1, 8, 8, 3))


def test_a_stage_has_one_drop_path_rate_or_one_per_block():
    stage = lambda **fields: jax.eval_shape(models.VSSStage(8, **fields).init, jax.random.key(0), jnp.zeros(MAP))["params"]
    assert set(stage(depth=3)) == {"blocks_0", "blocks_1", "blocks_2"} == set(stage(depth=3, drop_path=(0, 0.1, 0.2), remat=True))
    with pytest.raises(ValueError, match=r"drop_path=\(0.1, 0.2\): expected one rate, or depth=3 of them"):
        stage(depth=3, drop_path=(0.1, 0.2))


def test_a_stage_has_the_parameters_of_its_vmamba():
    tree = lambda model, shape: jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]
    model = create_model("vmamba_tiny", num_classes=10, dims=(8, 16), depths=(1, 1))
    assert tree(models.VSSStage(8, depth=1), MAP) == tree(model, (1, 32, 32, 3))["layers_0"]


@pytest.mark.slow
def test_examples_that_use_weights():
    """A stage alone computes what it computes inside its VMamba."""
    found = doc_examples.run(ALONE, "docs/models.md")
    assert found["y"].shape == found["x"].shape == found["features"].shape == (1, 6, 10, 8)
    model, images = found["model"], jax.random.uniform(jax.random.key(1), (1, 16, 16, 3))
    variables = {"params": jax.jit(model.init)(jax.random.key(0), images)["params"]}
    record = jax.jit(lambda v, x: model.apply(v, x, mutable=["intermediates"])[1]["intermediates"])(variables, images)
    inside, stem = record["stage0_blocks"][0], record["patch_embed_out"][0]
    np.testing.assert_allclose(jax.jit(found["stage"].apply)({"params": variables["params"]["layers_0"]}, stem), inside, atol=1e-5)


def test_example_of_nnx():
    found = doc_examples.run(NNX, "docs/models.md")
    assert found["y"].shape == (1, 12, 8) and np.abs(found["y"]).max() > 0


def test_example_of_a_network_has_the_shapes_it_says():
    code, _, compiled = NET.partition("net, images = ")
    net = doc_examples.run(code, "docs/models.md")["Net"]()
    assert jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((2, 16, 16, 3)))[0].shape == (2, 10) and "jax.jit(net.apply)" in compiled


@pytest.mark.slow
def test_example_of_a_network():
    assert doc_examples.run(NET, "docs/models.md")["logits"].shape == (2, 10)
