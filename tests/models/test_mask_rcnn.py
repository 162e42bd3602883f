"""Mask R-CNN over VMamba against MMDetection: detections, losses with the recorded samples, gradients."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.torch_files import Call, write
from vmamba_jax import checkpoints
from vmamba_jax.checkpoints.misfit import MisfitError
from vmamba_jax.models.dense.detection_losses import inside, stack
from vmamba_jax.models.dense.fpn import nearest

BACKBONE = dict(type="MM_VSSM", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), ssm_d_state=1, ssm_ratio=1.0, ssm_conv_bias=False, forward_type="v05_noz",
                norm_layer="ln2d", downsample_version="v3", drop_path_rate=0.0)
EXTRACTOR = dict(type="SingleRoIExtractor", out_channels=16, featmap_strides=[4, 8, 16, 32], finest_scale=14)
NMS = dict(type="nms", iou_threshold=0.7)
OPTIONS = dict(
    type="MaskRCNN", backbone=BACKBONE, neck=dict(type="FPN", in_channels=[8, 16, 24, 32], out_channels=16, num_outs=5),
    rpn_head=dict(in_channels=16, feat_channels=16, anchor_generator=dict(scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(bbox_roi_extractor=EXTRACTOR | dict(roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0)),
                  bbox_head=dict(in_channels=16, fc_out_channels=24, num_classes=5),
                  mask_roi_extractor=EXTRACTOR | dict(roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0)),
                  mask_head=dict(in_channels=16, conv_out_channels=12, num_classes=5)),
    train_cfg=dict(rpn=dict(sampler=dict(num=48)), rpn_proposal=dict(nms_pre=140, max_per_img=48, nms=NMS), rcnn=dict(sampler=dict(num=24))),
    test_cfg=dict(rpn=dict(nms_pre=140, max_per_img=36, nms=NMS), rcnn=dict(max_per_img=14)))
SIZES = np.array([[93, 121], [80, 128]])
LOSSES = ("loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask")


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("dense_mask_rcnn_vmamba")


@pytest.fixture(scope="module")
def model():
    return checkpoints.model_from_options("mask_rcnn", OPTIONS)


def weights(arrays, dtype=np.float64):
    return {name: x.astype(dtype) for name, x in arrays.items() if name.startswith(("backbone.", "neck.", "rpn_head.", "roi_head."))}


def images(arrays, dtype):
    return jnp.asarray(np.moveaxis(arrays["input"], 1, -1), dtype)


def objects(arrays, dtype=np.float64):
    return [{"boxes": arrays[f"gt_boxes{i}"].astype(dtype), "labels": arrays[f"gt_labels{i}"], "masks": arrays[f"gt_masks{i}"]} for i in range(2)]


def samples(arrays):
    """The recorded samples; indices of proposals count from the padded objects on, four in each image."""
    counts = [len(arrays[f"gt_labels{i}"]) for i in range(2)]
    rois = [arrays[f"train/roi_sampled{i}"] for i in range(2)]
    return {"rpn": np.stack([np.concatenate([arrays[f"train/rpn_{kind}{i}"] for kind in ("positive", "negative")]) for i in range(2)]),
            "roi": np.stack([np.where(x < n, x, x - n + max(counts)) for x, n in zip(rois, counts, strict=True)])}


def check_detections(found, recorded, dtype, tolerance):
    suffix = "_f64" if dtype == np.float64 else ""
    masks = np.split(recorded[f"eval/mask_probabilities{suffix}"], [14])
    assert found["valid"].all() and found["boxes"].dtype == dtype
    for i in range(2):
        np.testing.assert_allclose(found["boxes"][i], recorded[f"eval/boxes{i}{suffix}"], atol=tolerance * 128)
        np.testing.assert_allclose(found["scores"][i], recorded[f"eval/scores{i}{suffix}"], atol=tolerance)
        np.testing.assert_array_equal(found["labels"][i], recorded[f"eval/labels{i}"])
        np.testing.assert_allclose(found["masks"][i], masks[i], atol=tolerance)


def check_losses(found, recorded):
    """The original computes its targets in float32."""
    for name in LOSSES:
        assert float(found[name]) == pytest.approx(float(recorded[f"train/{name}_f64"].sum()), rel=1e-7), name


def test_from_maps(recorded, model, x64, tmp_path):
    """Pyramid, detections and losses from the backbone's recorded maps, with the weights of a file of MMDetection's trainer, and the weights written back."""
    record = Call("mmengine.logging.history_buffer HistoryBuffer", (), {"max_length": 100, "_log_history": np.zeros(3)})
    tree = {"meta": {"mmengine_version": "0.10.1", "epoch": 12}, "message_hub": {"log_scalars": {"train/loss": record}}, "state_dict": weights(recorded)}
    variables = checkpoints.convert(model, checkpoints.read_torch(write(tmp_path / "epoch_12.pth", tree, "zip")))

    def run(model, maps, given):
        maps = model.neck(maps)
        alone = model.losses_of(maps, SIZES, given, samples(recorded), model.proposed(maps, SIZES), jax.random.split(jax.random.key(0)))
        return maps, model.detect(maps, SIZES), model.losses_of(maps, SIZES, given, samples(recorded)), alone
    maps = [jnp.asarray(np.moveaxis(recorded[f"eval/map{i}_f64"], 1, -1)) for i in range(4)]
    maps, detections, losses, alone = jax.jit(lambda v, *args: model.apply(v, *args, method=run))(variables, maps, stack(objects(recorded)))
    for i, x in enumerate(maps):
        np.testing.assert_allclose(np.moveaxis(np.asarray(x), -1, 1), recorded[f"eval/fpn{i}_f64"], atol=1e-12)
    check_detections(detections, recorded, np.float64, 1e-9)
    check_losses(losses, recorded)
    for name in ("loss_cls", "loss_bbox"):                                 # 24 sampled boxes in each image: the mean over both is that of the images' own
        assert alone[name].shape == (2,) and float(alone[name].mean()) == pytest.approx(float(losses[name]), rel=1e-12)
    assert alone["loss_mask"].min() < losses["loss_mask"] < alone["loss_mask"].max()
    written = checkpoints.to_state_dict(model, variables)
    assert written.keys() == weights(recorded).keys() and all((written[name] == x).all() for name, x in weights(recorded).items())


@pytest.mark.slow
@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-9), (np.float32, 2e-5)])
def test_detections(recorded, model, x64, dtype, tolerance):
    """Boxes, scores, labels, masks of two images of different sizes."""
    variables = checkpoints.convert(model, weights(recorded, dtype))
    found = jax.jit(lambda v, x: model.apply(v, x, SIZES))(variables, images(recorded, dtype))
    check_detections(found, recorded, dtype, tolerance)


@pytest.mark.slow
def test_losses(recorded, model, x64):
    """The five losses with the recorded samples, and all gradients."""
    variables = checkpoints.convert(model, weights(recorded))

    @jax.jit
    def run(variables, images):
        def total(variables, images):
            found = model.apply(variables, images, SIZES, objects=objects(recorded), samples=samples(recorded), method="losses")
            return sum(found.values()), found
        return jax.value_and_grad(total, (0, 1), has_aux=True)(variables, images)
    (_, found), (gradient, of_images) = run(variables, images(recorded, np.float64))
    check_losses(found, recorded)
    wanted = recorded["train/input_grad_f64"]
    np.testing.assert_allclose(np.moveaxis(np.asarray(of_images), -1, 1), wanted, atol=1e-6 * np.abs(wanted).max())
    written = checkpoints.to_state_dict(model, gradient)
    compared = [name for name in recorded if name.startswith("train/grad/")]
    assert len(compared) == len(written)
    for name in compared:                                                                                              # stored in float32
        wanted = recorded[name]
        np.testing.assert_allclose(written[name.removeprefix("train/grad/")], wanted, atol=1e-6 * np.abs(wanted).max() + 1e-12, err_msg=name)


@pytest.mark.parametrize("change,message", [
    ({"backbone": {"type": "SwinTransformer"}}, "backbone.type='SwinTransformer': expected"),
    ({"neck": {"in_channels": [8, 16, 24, 48]}}, r"neck.in_channels=\(8, 16, 24, 48\): expected \(8, 16, 24, 32\)"),
    ({"neck": {"start_level": 1}}, "neck: start_level=1: expected type, in_channels"),
    ({"rpn_head": {"loss_bbox": {"type": "SmoothL1Loss"}}}, "rpn_head.loss_bbox.type='SmoothL1Loss': expected 'L1Loss'"),
    ({"roi_head": {"bbox_head": {"reg_class_agnostic": True}}}, "roi_head.bbox_head.reg_class_agnostic=True: expected False"),
    ({"roi_head": {"mask_head": {"num_classes": 7}}}, "roi_head.mask_head.num_classes=7: expected 80"),
    ({"test_cfg": {"rcnn": {"nms": {"type": "soft_nms"}}}}, "test_cfg.rcnn.nms.type='soft_nms': expected 'nms'"),
    ({"widths": 3}, "widths=3: expected options of mask_rcnn"),
])
def test_option_errors(change, message):
    options = {"backbone": BACKBONE} | change | ({"backbone": BACKBONE | change["backbone"]} if "backbone" in change else {})
    with pytest.raises(ValueError, match=message):
        checkpoints.model_from_options("mask_rcnn", options)


@pytest.mark.parametrize("name,change", [("roi_head.bbox_head.fc_reg.weight", None), ("backbone.outnorm2.bias", None),
                                         ("roi_head.mask_head.upsample.weight", (12, 12, 2, 3))])
def test_misfits(recorded, model, name, change):
    """MMDetection prints such a difference and goes on with random weights."""
    given = weights(recorded)
    if change:
        given[name] = np.zeros(change)
    else:
        del given[name]
    with pytest.raises(MisfitError, match=name):
        checkpoints.convert(model, given)


@pytest.mark.parametrize("change,message", [
    ({"labels": np.array([[5]])}, r"objects\['labels'\]=5: expected a class from 0 to 4"),
    ({"boxes": np.zeros((1, 2, 4))}, r"objects\['boxes'\].shape=\(1, 2, 4\): expected \(1, 1, 4\)"),
    ({"masks": np.zeros((1, 1, 32, 30), bool)}, r"objects\['masks'\].shape=\(1, 1, 32, 30\): expected \(1, 1, 32, 32\)"),
])
def test_object_errors(model, change, message):
    good = {"boxes": np.zeros((1, 1, 4)), "labels": np.zeros((1, 1), int), "masks": np.zeros((1, 1, 32, 32), bool), "valid": np.ones((1, 1), bool)}
    with pytest.raises(ValueError, match=message):
        model.apply({}, jnp.zeros((1, 32, 32, 3)), objects=good | change, method="losses")


def test_anchors_in_padding_are_left_out():
    """An image of 33 x 20 in a batch of 96 x 64 pixels is padded to 64 x 32, as MMDetection pads it alone."""
    found = inside([(12, 8), (3, 2)], (8, 32), 3, np.array([[33, 20], [96, 64]]))
    wanted = [np.repeat(np.pad(np.ones(part, bool), [(0, h - part[0]), (0, w - part[1])]).ravel(), 3) for part, h, w in (((8, 4), 12, 8), ((2, 1), 3, 2))]
    np.testing.assert_array_equal(found[0], np.concatenate(wanted))
    assert found[1].all() and found.shape == (2, 3 * (96 + 6))


def test_maps_that_do_not_double():
    """PyTorch's nearest: cell floor(i * 3 / 5) of three."""
    np.testing.assert_array_equal(nearest(jnp.arange(3.0).reshape(1, 3, 1, 1), (5, 2))[0, :, 0, 0], [0, 0, 1, 1, 2])
