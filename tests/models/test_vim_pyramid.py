"""Vim as a backbone: maps of four strides from the outputs of four blocks, by plain loops; its weights under the names of VisionMambaSeg."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import vmamba_jax
from vmamba_jax import checkpoints
from vmamba_jax.checkpoints.convert import leaves_of

FIELDS = dict(scan_implementation="reference", embed_dim=4, depth=4, d_state=2, patch_size=16, stride=16, class_token="none", image_size=48, drop_path_rate=0.0)


@pytest.fixture(scope="module")
def made():
    """(model, variables, image, maps, outputs of the blocks' mixers) on 32 x 48 pixels."""
    model = vmamba_jax.create_model("vim_tiny", out_indices=(0, 1, 2, 3), **FIELDS)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 48, 3)), jnp.float32)
    rng = np.random.default_rng(1)
    variables = unflatten_dict({path: rng.uniform(0.1, 0.6, leaf.shape).astype(np.float32) for path, leaf in leaves_of(model).items()})
    maps, seen = jax.jit(lambda *args: model.apply(*args, mutable=["intermediates"]))(variables, image)
    sums = [seen["intermediates"][f"block{i}_out"][0] for i in range(4)]
    outputs = [None, *((after - before).reshape(1, 2, 3, 4) for before, after in zip(sums[:3], sums[1:], strict=True))]
    return model, variables, image, maps, outputs


def doubled(x, kernel, bias):
    """A transposed convolution, by the dumbest loop."""
    found = np.zeros((1, 2 * x.shape[1], 2 * x.shape[2], kernel.shape[2]))
    for y in range(x.shape[1]):
        for z in range(x.shape[2]):
            for a in range(2):
                for b in range(2):
                    found[0, 2 * y + a, 2 * z + b] = x[0, y, z] @ kernel[a, b].T + bias
    return found


def test_maps(made):
    """The second map is the second block's output doubled, the third is as it is, the fourth is pooled; the sums of the blocks are in no map."""
    model, variables, _, maps, outputs = made
    assert [x.shape for x in maps] == [(1, 8, 12, 4), (1, 4, 6, 4), (1, 2, 3, 4), (1, 1, 1, 4)]
    params = variables["params"]
    np.testing.assert_allclose(maps[1], doubled(outputs[1], params["fpn2_0"]["kernel"], params["fpn2_0"]["bias"]), atol=2e-5)
    np.testing.assert_allclose(maps[2], outputs[2], atol=1e-5)
    np.testing.assert_allclose(maps[3][0, 0, 0], np.asarray(outputs[3])[0, :, :2].max((0, 1)), atol=1e-5)
    assert not {"norm_f", "head"} & set(params) and set(variables["batch_stats"]) == {"fpn1_1"}


def test_names_of_the_weights(made):
    """VisionMambaSeg's names and layouts, with the final norm that it has and does not use."""
    options = {"backbone": dict(type="VisionMambaSeg", img_size=48, embed_dim=4, depth=4, d_state=2, drop_path_rate=0.0, out_indices=[0, 1, 2, 3]),
               "decode_head": dict(channels=8, num_classes=5), "auxiliary_head": dict(channels=8, num_classes=5)}
    model = checkpoints.model_from_options("upernet", options)
    assert model.backbone == made[0].clone(num_classes=model.backbone.num_classes, pool=model.backbone.pool, scan_implementation=None) and model.backbone.in_channels == 3
    random = unflatten_dict({path: np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32) for path, leaf in leaves_of(model).items()})
    written = checkpoints.to_state_dict(model, random)
    assert written["backbone.fpn1.0.weight"].shape == (4, 4, 2, 2) and {"backbone.fpn1.1.running_var", "backbone.fpn1.3.bias", "backbone.fpn2.0.weight"} <= set(written)
    again = checkpoints.to_state_dict(model, checkpoints.convert(model, written | {"backbone.norm_f.weight": np.ones(4, np.float32)}))
    assert again.keys() == written.keys() and all((again[name] == x).all() for name, x in written.items())
    with pytest.raises(ValueError, match="fpn2.0.bias"):
        checkpoints.convert(model, {name: x for name, x in written.items() if name != "backbone.fpn2.0.bias"})


@pytest.mark.parametrize("change,message", [({"class_token": "middle"}, "class_token='middle' with out_indices: expected 'none'"),
                                            ({"stride": 4}, "stride=4 with out_indices: expected 16 or 8"), ({"out_indices": (0, 3)}, "expected four blocks"),
                                            ({"out_indices": (0, 1, 2, 4)}, "out_indices")])
def test_errors(change, message):
    model = vmamba_jax.create_model("vim_tiny", **FIELDS | {"out_indices": (0, 1, 2, 3)} | change)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 48, 3)))


def test_a_stride_of_eight_and_features_only():
    model = vmamba_jax.create_model("vim_tiny", features_only=True, **FIELDS | {"stride": 8, "depth": 8})
    assert model.out_indices == (1, 3, 5, 7)
    maps = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], jax.ShapeDtypeStruct((1, 72, 72, 3), jnp.float32))
    assert [x.shape[1:3] for x in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
