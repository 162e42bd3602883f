"""The first layer of every family: its path, its output alone, and its adjoint."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vmamba_jax
from tests.helpers.toy_training import SHAPE, Classifier, batch
from vmamba_jax import models, training
from vmamba_jax.training import objectives
from vmamba_jax.training.objectives import first_layer

VMAMBA = {"dims": (8, 16), "depths": (1, 1)}
FAMILIES = {  # catalog name, fields, the first layer, its output for images of 32 x 32
    "vmamba_tiny": (VMAMBA, "patch_embed/conv1", (2, 16, 16, 4)),
    "vmamba_tiny_v0": (VMAMBA, "patch_embed/conv1", (2, 8, 8, 8)),
    "vim_tiny": ({"embed_dim": 8, "depth": 1, "image_size": 32}, "patch_embed", (2, 2, 2, 8)),
    "vit_tiny": ({"embed_dim": 8, "depth": 1, "num_heads": 2, "image_size": 32}, "patch_embed", (2, 2, 2, 8)),
    "swin_tiny": ({"embed_dim": 8, "depths": (1,), "num_heads": (2,), "image_size": 32}, "patch_embed/proj", (2, 8, 8, 8)),
    "convnext_tiny": ({"dims": (8,), "depths": (1,)}, "stem_0", (2, 8, 8, 8)),
    "mambaout_tiny": ({"dims": (8,), "depths": (1,)}, "stem/conv1", (2, 16, 16, 4)),
    "spatialmamba_tiny": ({"dims": (8,), "depths": (1,)}, "patch_embed/conv1/conv", (2, 16, 16, 4)),
    "mambavision_tiny": ({"dims": (8,), "depths": (1,), "num_heads": (1,), "windows": (1,), "stem_width": 4}, "patch_embed/conv_down_0", (2, 16, 16, 4)),
    "resnet18": ({"layers": (1,), "channels": (8,), "stem_width": 8}, "conv1", (2, 16, 16, 8)),
    "efficientnet_lite0": ({}, "conv_stem", (2, 16, 16, 32)),
    "dss_cifar10": ({"d_model": 8, "depth": 1, "d_state": 4}, "input", (2, 1024, 8)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_first_layer_of_every_family(name):
    fields, expected, shape = FAMILIES[name]
    model = vmamba_jax.create_model(name, num_classes=3, **fields)
    classifier, images = models.Classifier(model), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def call(variables, images):
        return classifier(variables, images)

    assert first_layer.find(call, variables, images) == first_layer.parse(expected)
    z = jax.eval_shape(lambda *args: first_layer.output(first_layer.parse(expected), call, *args), variables, images)
    assert z.shape == shape


def test_adjoint_at_the_first_call():
    """A module called twice is shifted once, and the model's result is otherwise unchanged."""
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            layer = nn.Dense(3, name="layer")
            return layer(nn.relu(layer(x)))

    x, params = jnp.array([[1.0, -2.0, 0.5]]), {"layer": {"kernel": jnp.arange(9.0).reshape(3, 3) / 10, "bias": jnp.ones(3)}}
    call = lambda: Twice().apply({"params": params}, x)
    found = jax.grad(lambda shift: first_layer.shifted(("layer",), call, shift).sum())(jnp.zeros((1, 3)))
    kernel = params["layer"]["kernel"]
    np.testing.assert_allclose(found, (x @ kernel + 1 > 0) * kernel.sum(1), rtol=1e-6)
    np.testing.assert_allclose(first_layer.shifted(("layer",), call, jnp.zeros((1, 3))), call())


def test_weights_of_the_model_itself():
    class Bare(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return x.reshape(len(x), -1) @ self.param("w", nn.initializers.ones, (16, 3))

    found = first_layer.find(lambda x: Bare().apply({"params": {"w": jnp.ones((16, 3))}}, x), jnp.ones((2, *SHAPE)))
    assert found == ()


def test_later_layers_do_not_run():
    ran = []

    class Spied(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dense(4)(x)
            ran.append("later")
            return nn.Dense(3)(x)

    variables = Spied().init(jax.random.key(0), jnp.ones((1, 2)))
    ran.clear()
    z = first_layer.output(("Dense_0",), Spied().apply, variables, jnp.ones((5, 2)))
    assert z.shape == (5, 4) and not ran
    np.testing.assert_array_equal(Spied().apply(variables, jnp.ones((5, 2))).shape, (5, 3))  # the model still works


@pytest.mark.slow
def test_choice_of_the_layer():
    """One inner step ascends the true gradient at any layer; three do not, as the layer norm is not linear."""
    optimizer = optax.sgd(0.1)
    params = Classifier().init(jax.random.key(0), SHAPE)["params"]
    state = training.TrainState(jnp.zeros((), jnp.int32), params, {}, optimizer.init(params))

    def after(layer, inner_steps):
        step = objectives.yopo(Classifier(), optimizer, eps=0.1, step_size=0.05, passes=2, inner_steps=inner_steps, layer=layer)
        return jax.jit(step)(state, batch(), jax.random.key(1))[0].params["Dense_1"]["kernel"]

    np.testing.assert_allclose(after("LayerNorm_0", 1), after(None, 1), atol=1e-6)
    assert np.abs(after(("LayerNorm_0",), 3) - after("Dense_0", 3)).max() > 1e-5
