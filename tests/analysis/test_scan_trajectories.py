"""Scan trajectories in the model and in the image; both are equal for a Vim without position embedding."""
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import analysis, create_model
from vmamba_jax.analysis import attention_maps
from vmamba_jax.core import scan_orders
from vmamba_jax.evaluation.disturbances import Order, create
from vmamba_jax.models import Classifier
from vmamba_jax.models.baselines.vit import ViT
from vmamba_jax.models.vim.vim import Vim

N = 24
VIM = Vim(num_classes=4, embed_dim=8, depth=1, patch_size=4, stride=4, d_state=2, image_size=12, pos_embed=False)
VMAMBA = create_model("vmamba_tiny", num_classes=4, dims=(4,), depths=(1,), mlp_ratio=0.0, conv_size=0, patch_embed="v1", patch_size=2,
                      d_state=2)


@functools.cache
def setting(model, side=12):
    classifier = Classifier(model, mean=0.5, std=0.3)
    images = np.asarray(jax.random.uniform(jax.random.key(1), (N, side, side, 3)))
    shapes = jax.eval_shape(lambda: classifier.init(jax.random.key(0), (side, side, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), shapes)
    logits = jax.jit(classifier)(variables, images)
    variables["params"]["head"]["bias"] -= logits.mean(0)
    return classifier, variables, images, np.asarray((logits - logits.mean(0)).argmax(1))


@pytest.mark.slow
def test_vim_equals_reordered_image():
    """Without position embeddings another scan of the image and the scan of another image are the same to rounding."""
    classifier, variables, images, labels = setting(VIM)
    rows = analysis.trajectory_accuracy(classifier, variables, (images, labels), orders=("snake", Order("random", seed=2)), grid=3)
    assert [(row["change"], row["order"]["kind"]) for row in rows] == [(c, o) for o in ("snake", "random") for c in ("scan", "image")]
    for scan, image in zip(rows[::2], rows[1::2], strict=True):
        assert image.pop("grid") == [3, 3] and (scan.pop("correct") == image.pop("correct")).all()
        assert {**scan, "change": None} == {**image, "change": None} and scan["accuracy"] == 1 and scan["drop"] > 0
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize("class_token", ["middle", "double"])
def test_vim_keeps_position_embeddings(class_token):
    model = VIM.clone(pos_embed=True, class_token=class_token)
    images = jax.random.uniform(jax.random.key(1), (2, 12, 12, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), shapes)
    order = Order("columns")
    found = jax.jit(model.clone(scan_pattern=order).apply)({"params": params}, images)
    patches = [i for i in range(params["pos_embed"].shape[1]) if i not in {"middle": [4], "double": [0, 10]}[class_token]]
    moved = np.asarray(params["pos_embed"]).copy()
    moved[:, patches] = moved[:, [patches[i] for i in (0, 3, 6, 1, 4, 7, 2, 5, 8)]]
    seen = create("patch_reorder", grid=3, order=order)(images)
    run = jax.jit(model.apply)
    np.testing.assert_allclose(run({"params": {**params, "pos_embed": moved}}, seen), found, atol=1e-4)
    assert abs(np.asarray(run({"params": params}, images) - found)).max() > 0.1


def test_scan_attention_of_vim_in_image_order():
    classifier, variables, images, _ = setting(VIM)
    order = Order("columns")
    found = attention_maps.scan_attention(VIM.clone(scan_pattern=order), variables, images[:2], 0, mean=0, std=1)
    seen = create("patch_reorder", grid=3, order=order)(images[:2])
    plain = attention_maps.scan_attention(VIM, variables, seen, 0, mean=0, std=1)     # in order of visit
    np.testing.assert_allclose(np.asarray(found), np.asarray(plain).swapaxes(1, 2), rtol=1e-5)


def test_vmamba():
    classifier, variables, images, labels = setting(VMAMBA, 8)
    reports = []
    other, = analysis.trajectory_accuracy(classifier, variables, (images, labels), orders=("snake",), changes="scan", batch_size=16,
                                            progress=lambda *report: reports.append(report[:2]))
    assert other["accuracy"] == 1 and other["lost"] > 0 and "grid" not in other
    assert reports == [(16, 2 * N), (N, 2 * N), (N + 16, 2 * N), (2 * N, 2 * N)]
    again = jax.jit(Classifier(VMAMBA.clone(scan_pattern=Order("snake")), 0.5, 0.3))(variables, images).argmax(1)
    assert other["disturbed_accuracy"] == (np.asarray(again) == labels).mean()


def test_order():
    assert scan_orders.order("rows", 2, 3).tolist() == [0, 1, 2, 3, 4, 5]
    assert scan_orders.order((2, 0, 1), 1, 3).tolist() == [2, 0, 1]
    for pattern in ("cross", (0, 1), (0, 0, 1)):
        with pytest.raises(ValueError, match="scan_pattern"):
            scan_orders.order(pattern, 1, 3)


@pytest.mark.parametrize(("model", "options", "text"), [
    (VIM, {"changes": ("scan", "weights")}, "changes=('scan', 'weights')"), (VIM, {"changes": ()}, "changes=()"),
    (VMAMBA.clone(scan_pattern="bidi"), {}, "'bidi'"), (VIM, {"orders": ("spiral",)}, "kind='spiral'"),
    (ViT(num_classes=4, embed_dim=8, depth=1, num_heads=2, patch_size=4, image_size=12), {}, "ViT"),
], ids=["change", "none", "bidi", "order", "vit"])
def test_errors(model, options, text):
    with pytest.raises(ValueError, match="expected") as raised:
        analysis.trajectory_accuracy(Classifier(model, 0.5, 0.3), {}, (np.zeros((2, 12, 12, 3)), np.zeros(2, int)), **options)
    assert text in str(raised.value)
