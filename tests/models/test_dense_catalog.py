"""Segmenters and detectors of the catalog: names, parameters, overrides."""
import math

import jax
import jax.numpy as jnp
import pytest

import vmamba_jax
from tests.helpers.golden_models import count
from vmamba_jax import models

PUBLISHED = {  # millions of parameters with UperNet and Mask R-CNN
    "vmamba_tiny": (62, 50), "vmamba_tiny_s2l5": (62, 50), "vmamba_small": (82, 70), "vmamba_base": (122, 108), "vmamba_tiny_v0": (55, 42),
    "vmamba_small_v0": (76, 64), "vmamba_base_v0": (110, 96), "swin_tiny": (60, 48), "swin_small": (81, 69), "swin_base": (121, 107),
    "convnext_tiny": (60, 48), "convnext_small": (82, 70), "convnext_base": (122, 108)}


def test_names():
    assert len(vmamba_jax.list_models("mask_rcnn_*")) == len(vmamba_jax.list_models("upernet_*")) == len(PUBLISHED) + 4
    assert not any(name.startswith(("upernet", "mask_rcnn")) for name in vmamba_jax.list_models())
    assert models.entry("mask_rcnn_vmamba_tiny_s1l8") is models.entry("mask_rcnn_vmamba_tiny")
    with pytest.raises(KeyError, match="model='upernet_deit_tiny': expected one of upernet_vmamba_tiny, "):
        models.entry("upernet_deit_tiny")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters(name):
    found = [round(models.entry(f"{head}_{name}").parameters / 1e6) for head in ("upernet", "mask_rcnn")]
    assert found == list(PUBLISHED[name])


def test_parameters_of_vim():
    """Its paper has 13 and 46 million with UperNet; a pyramid over plain maps is not published for Mask R-CNN."""
    assert [math.ceil(models.entry(f"upernet_vim_{size}").parameters / 1e6) for size in ("tiny", "small")] == [13, 46]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*vmamba_jax.list_models("upernet_*"), *vmamba_jax.list_models("mask_rcnn_*")])
def test_parameters(name):
    assert count(vmamba_jax.create_model(name)) == models.entry(name).parameters


@pytest.mark.parametrize("name", ["mask_rcnn_convnext_tiny", "upernet_vmamba_tiny", "mask_rcnn_swin_tiny", "mask_rcnn_resnet50", "upernet_vim_tiny"])
@pytest.mark.often(1)
def test_shapes(name):
    """Traced with small fields: one output for images of any size, in the dtype asked for."""
    backbone = {"depth": 24, "embed_dim": 8} if "vim" in name else {"layers" if "resnet" in name else "depths": (1, 1, 1, 1)}
    model = vmamba_jax.create_model(name, num_classes=4, channels=8, dtype="bfloat16", backbone=backbone, **({} if "upernet" in name else {"fc_channels": 8}))
    assert model.backbone.dtype == model.dtype == jnp.bfloat16 and model.backbone.out_indices == ((5, 11, 17, 23) if "vim" in name else (0, 1, 2, 3))
    found = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], jax.ShapeDtypeStruct((2, 70, 90, 3), jnp.float32))
    if "upernet" in name:
        assert found.shape == (2, 70, 90, 4)
    else:
        assert {key: x.shape for key, x in found.items()} == {"boxes": (2, 100, 4), "scores": (2, 100), "labels": (2, 100), "valid": (2, 100),
                                                              "masks": (2, 100, 28, 28)}


def test_overrides():
    model = vmamba_jax.create_model("mask_rcnn_vmamba_tiny", backbone=dict(dims=[8, 16, 24, 32], depths=[1, 1, 1, 1]), strides=[4, 8, 16, 32, 64])
    assert model.backbone.dims == (8, 16, 24, 32) and hash(model)
    assert vmamba_jax.create_model("upernet_swin_tiny").backbone.padding == "before_roll"
    with pytest.raises(TypeError, match=r"backbone.dimz=\[8\]: expected fields of mask_rcnn_vmamba_tiny's backbone"):
        vmamba_jax.create_model("mask_rcnn_vmamba_tiny", backbone=dict(dimz=[8]))
    with pytest.raises(TypeError, match="widths=3: expected fields of upernet_swin_tiny"):
        vmamba_jax.create_model("upernet_swin_tiny", widths=3)
