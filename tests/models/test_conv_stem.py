"""ConvNeXt and ViT with the convolutional stem of Singh et al.: the released program's numbers, names, parameter counts and options."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from tests.helpers import golden_models
from vmamba_jax import checkpoints, models
from vmamba_jax.checkpoints import fine_tuning
from vmamba_jax.training.optimization import layer_decay

SLOW = pytest.mark.slow
GOLDEN = {"convstem_convnext_small": "convnext", "convstem_convnext_wide_small": "convnext", "convstem_vit_small": "vit"}
SOME = [pytest.param(name, marks=() if name == "convstem_vit_small" else SLOW) for name in GOLDEN]


def built(name):
    return checkpoints.model_from_options(GOLDEN[name], golden_models.load(name)[1]["constructor"])


@pytest.mark.parametrize("name", SOME)
def test_float64(x64, name):
    golden_models.check_gradients(built(name), name)


def test_logits_of_convnext():
    golden_models.check_logits(built("convstem_convnext_wide_small"), "convstem_convnext_wide_small")


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_float32(name):
    golden_models.check_gradients(built(name), name, float64=False)


@pytest.mark.parametrize("name,parameters", [  # of the released files
    ("convnext_tiny_convstem", 28_627_432), ("convnext_base_convstem", 88_753_416), ("vit_small_convstem", 22_777_576)])
def test_released_parameters(name, parameters):
    entry = models.entry(name)
    assert golden_models.count(vmamba_jax.create_model(name), 224) == parameters == entry.parameters
    assert entry.releases[0].file.endswith("_cvst_robust.pt") and entry.releases[0].download.startswith(f"gdown -O {entry.releases[0].file} 1-")
    assert entry.mean == ((0.0,) * 3 if "convnext" in name else models.IMAGENET_MEAN)


def test_released_files_convert():
    """Names with a prefix and a normalizer around them; the catalog's model from the released options."""
    name = "convstem_convnext_small"
    model, state_dict = built(name), golden_models.weights(name, np.float32)
    assert {"stem.stem.0.weight", "stem.stem.4.bias"} <= state_dict.keys()
    wrapped = {f"base_model.model.{key}": x for key, x in state_dict.items()} | {"base_model.normalize.mean": np.zeros((1, 3, 1, 1), np.float32)}
    found = checkpoints.to_state_dict(model, checkpoints.convert(model, wrapped))
    assert found.keys() == state_dict.keys() and all(np.array_equal(found[key], state_dict[key]) for key in found)
    released = checkpoints.model_from_options("convnext", dict(conv_stem="ConvBlock3", stem_width=64, dims=(128, 256, 512, 1024), depths=(3, 3, 27, 3)))
    assert released.clone(drop_path_rate=0.5) == vmamba_jax.create_model("convnext_base_convstem")
    released = checkpoints.model_from_options("vit", dict(conv_stem="ConvBlock", stem_end=16))
    assert released.clone(drop_path_rate=0.1) == vmamba_jax.create_model("vit_base_convstem")


@pytest.mark.parametrize("name,fields,path", [
    ("convnext_tiny_convstem", dict(dims=(8,), depths=(1,), conv_stem=(4, 8)), ("stem", "stem_0", "kernel")),
    ("vit_small_convstem", dict(embed_dim=8, depth=1, num_heads=2, image_size=32, conv_stem=(2, 4, 6, 8)), ("patch_embed", "stem_0", "kernel"))])
def test_stem_is_known_to_training(name, fields, path):
    """The kernel that reads the images, and the stem's place, which layer decay reads."""
    model = vmamba_jax.create_model(name, **fields)
    assert fine_tuning.images_path(model) == ("params", *path)
    params = golden_models.abstract(model, 32)["params"]
    scales = layer_decay.scales(params, 0.5)
    flat = {"/".join(str(key.key) for key in at): x for at, x in jax.tree_util.tree_leaves_with_path(scales)}
    stem = {x for at, x in flat.items() if at.startswith(("stem/", "patch_embed/"))}
    assert len(stem) == 1 and stem.pop() < min(x for at, x in flat.items() if "blocks_" in at)


@pytest.mark.parametrize("family,option,words", [
    ("convnext", dict(conv_stem="ConvBlock1", stem_width=64), "stem_width=64: expected 48, half of the first stage's width, with patch_size=4, not 4"),
    ("convnext", dict(conv_stem="ConvBlock2"), "conv_stem='ConvBlock2': expected one of 'ConvBlock1', 'ConvBlock3'"),
    ("vit", dict(conv_stem="ConvBlock"), "conv_stem='ConvBlock': expected a stem that ends in embed_dim=768 channels, not 384"),
    ("vit", dict(conv_stem="ConvBlock3"), "conv_stem='ConvBlock3': expected one of 'ConvBlock'")])
def test_wrong_options(family, option, words):
    with pytest.raises(ValueError, match=words):
        checkpoints.model_from_options(family, option)


@pytest.mark.parametrize("fields,words", [
    (dict(conv_stem=(8, 4)), "conv_stem=(8, 4): expected the first stage's width, 8"), (dict(conv_stem=(8,)), "conv_stem=(8,): expected channels of at least log2"),
    (dict(conv_stem=(4, 8), patch_size=3), "with patch_size=3 a power of 2")])
def test_wrong_fields(fields, words):
    model = models.ConvNeXt(dims=(8,), depths=(1,), **fields)
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    assert words in str(raised.value)
