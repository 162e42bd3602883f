"""UperNet against MMSegmentation's heads, alone and over VMamba's backbone, in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import checkpoints, evaluation
from vmamba_jax.checkpoints.convert import original_shapes
from vmamba_jax.checkpoints.misfit import MisfitError
from vmamba_jax.models.dense import layers
from vmamba_jax.models.dense.upernet import UperNet
from vmamba_jax.models.vmamba.vmamba import VMamba
from vmamba_jax.training.objectives.segmentation import pixel_cross_entropy

BACKBONE = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), ssm_d_state=1, ssm_ratio=1.0, ssm_conv_bias=False, forward_type="v05_noz", norm_layer="ln2d",
                downsample_version="v3", drop_path_rate=0.0)
HEADS = dict(decode_head=dict(type="UPerHead", in_channels=[8, 16, 24, 32], channels=12, dropout_ratio=0.0, num_classes=6, norm_cfg={"type": "SyncBN"}),
             auxiliary_head=dict(type="FCNHead", in_channels=24, channels=8, dropout_ratio=0.0, num_classes=6))


def last(x):
    return jnp.asarray(np.moveaxis(x, 1, -1), jnp.float64)


def first(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def weights(arrays):
    """The arrays of a state dict, in float64."""
    return {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in arrays.items() if ("head." in name and "/" not in name) or name.startswith("backbone.")}


@pytest.fixture(scope="module")
def over_vmamba():
    return checkpoints.model_from_options("upernet", {"backbone": {"type": "MM_VSSM", **BACKBONE}, **HEADS})


@pytest.mark.parametrize("how", ["whole", pytest.param("slide", marks=pytest.mark.slow)])
def test_over_vmamba(golden, x64, over_vmamba, how):
    arrays, model = golden("dense_upernet_vmamba"), over_vmamba
    variables, images = checkpoints.convert(model, weights(arrays)), last(arrays["input"])
    if how == "slide":
        found = evaluation.segmentation.slide(jax.jit(lambda x: model.apply(variables, x)), images, (64, 72), (43, 48))
    else:
        found = jax.jit(lambda x: model.apply(variables, x))(images)
    np.testing.assert_allclose(first(found), arrays[f"eval/{how}_logits_f64"], atol=1e-6)            # stored in float32
    written = checkpoints.to_state_dict(model, variables)
    assert written.keys() == {name for name in weights(arrays) if not name.endswith("num_batches_tracked")}
    assert all((written[name] == arrays[name].astype(np.float64)).all() for name in written)


def loss(outputs, labels):
    """MMSegmentation's: cross-entropy at the labels' size over all pixels, ignored ones too, and 0.4 times the auxiliary head's."""
    one = lambda logits: pixel_cross_entropy(layers.resize(logits, labels.shape[1:]), labels)
    return one(outputs[0]) + 0.4 * one(outputs[1])


@pytest.mark.parametrize("mode", [pytest.param("eval", marks=pytest.mark.slow), "train"])
def test_heads(golden, x64, mode):
    """Logits, losses, gradients of maps and weights, and the running statistics after a step, on maps that no pool scale divides."""
    arrays = golden("dense_upernet_heads")
    train = mode == "train"
    model = UperNet(VMamba(dims=(8, 12, 16, 24), depths=(1, 1, 1, 1), out_indices=(0, 1, 2, 3)), 7, 14, 8, dropout=0.0)
    backbone = {name: np.zeros(shape) for name, shape in original_shapes(model).items() if name.startswith("backbone.")}
    variables = checkpoints.convert(model, weights(arrays) | backbone)
    maps, labels = [last(arrays[f"map{i}"]) for i in range(4)], jnp.asarray(arrays["label"])

    @jax.jit
    def run(params, maps):
        def total(params, maps):
            outputs, stats = model.apply(variables | {"params": params}, maps, train, method="heads", mutable=["batch_stats"])
            return loss(outputs, labels), (outputs, stats)
        return jax.value_and_grad(total, (0, 1), has_aux=True)(params, maps)
    (value, (outputs, stats)), (gradient, of_maps) = run(variables["params"], maps)
    assert value == pytest.approx(float(arrays[f"{mode}/loss_f64"]), rel=1e-10)
    for found, name in zip(outputs, ("logits", "aux_logits"), strict=True):
        np.testing.assert_allclose(first(found), arrays[f"{mode}/{name}_f64"], atol=1e-12)
    if mode == "eval":
        for i, found in enumerate(of_maps):
            np.testing.assert_allclose(first(found), arrays[f"eval/map{i}_grad_f64"], atol=1e-13)
    written = checkpoints.to_state_dict(model, variables | {"params": gradient})
    compared = [name for name in arrays if name.startswith(f"{mode}/grad/")]
    assert len(compared) >= 4
    for name in compared:                                                             # stored in float32
        wanted = arrays[name]
        np.testing.assert_allclose(written[name.removeprefix(f"{mode}/grad/")], wanted, atol=2e-7 * np.abs(wanted).max() + 1e-12, err_msg=name)
    if train:
        after = checkpoints.to_state_dict(model, variables | stats)
        compared = [name for name in arrays if name.startswith("train/after/") and name.endswith("_f64")]
        assert len(compared) == 26
        for name in compared:
            np.testing.assert_allclose(after[name.removeprefix("train/after/").removesuffix("_f64")], arrays[name], rtol=1e-12)


def test_adaptive_pool_bins_overlap():
    x = jnp.arange(5.0).reshape(1, 5, 1, 1)
    np.testing.assert_allclose(layers.adaptive_average_pool(x, 3)[0, :, 0, 0], [0.5, 2.0, 3.5])       # rows 0-1, 1-3, 3-4


@pytest.mark.parametrize("change,message", [
    ({"backbone": {"type": "SwinTransformer"}}, "backbone.type='SwinTransformer': expected"),
    ({"backbone": {"widths": 3}}, "backbone: widths=3: expected options of vmamba"),
    ({"decode_head": {"align_corners": True}}, "decode_head.align_corners=True: expected False"),
    ({"decode_head": {"in_channels": [8, 16, 24, 48]}}, r"decode_head.in_channels=\[8, 16, 24, 48\]: expected \[8, 16, 24, 32\]"),
    ({"auxiliary_head": {"num_classes": 7}}, "auxiliary_head.num_classes=7: expected 6"),
    ({"auxiliary_head": {"norm_cfg": "GN"}}, "norm_cfg='GN'"),
])
def test_option_errors(change, message):
    options = {"backbone": BACKBONE, **HEADS}
    with pytest.raises(ValueError, match=message):
        checkpoints.model_from_options("upernet", {name: {**given, **change.get(name, {})} for name, given in options.items()})


def test_missing_weight_raises(golden, over_vmamba):
    """MMSegmentation prints such a difference and goes on with random weights."""
    given = weights(golden("dense_upernet_vmamba"))
    del given["backbone.outnorm1.weight"]
    with pytest.raises(MisfitError, match="backbone.outnorm1.weight"):
        checkpoints.convert(over_vmamba, given)
