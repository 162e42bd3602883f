"""Mask R-CNN of MMDetection (FPN, RPNHead, StandardRoIHead) over the backbones of VMamba's repository: its options and parameter names."""
from vmamba_jax.checkpoints.families import dense
from vmamba_jax.checkpoints.families.common import dotted
from vmamba_jax.core import checks
from vmamba_jax.models.dense.detection import Detections, Proposals
from vmamba_jax.models.dense.detection_losses import Sampling
from vmamba_jax.models.dense.mask_rcnn import MaskRCNN

MODEL = MaskRCNN
CLASSIFIER = ()

DEFAULTS = dict(type="MaskRCNN", data_preprocessor=None, backbone=None, neck=None, rpn_head=None, roi_head=None, train_cfg=None, test_cfg=None,
                init_cfg=None)
FIXED = ("type",)


def _coder(std):
    return dict(type="DeltaXYWHBBoxCoder", target_means=(0.0, 0.0, 0.0, 0.0), target_stds=std)


def _losses(sigmoid):
    return dict(loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=sigmoid, loss_weight=1.0), loss_bbox=dict(type="L1Loss", loss_weight=1.0))


def _extractor(size):
    return dict(type="SingleRoIExtractor", roi_layer=dict(type="RoIAlign", output_size=size, sampling_ratio=0), out_channels=256,
                featmap_strides=(4, 8, 16, 32), finest_scale=56)


def _sampling(positive, negative, least, count, fraction, add):
    return dict(assigner=dict(type="MaxIoUAssigner", pos_iou_thr=positive, neg_iou_thr=negative, min_pos_iou=least, match_low_quality=True,
                              ignore_iof_thr=-1),
                sampler=dict(type="RandomSampler", num=count, pos_fraction=fraction, neg_pos_ub=-1, add_gt_as_proposals=add), pos_weight=-1, debug=False)


def _proposals(per_level):
    return dict(nms_pre=per_level, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)


PARTS = dict(
    neck=dict(type="FPN", in_channels=None, out_channels=256, num_outs=5),
    rpn_head=dict(type="RPNHead", in_channels=256, feat_channels=256, bbox_coder=_coder((1.0, 1.0, 1.0, 1.0)), **_losses(True),
                  anchor_generator=dict(type="AnchorGenerator", scales=(8,), ratios=(0.5, 1.0, 2.0), strides=(4, 8, 16, 32, 64))),
    roi_head=dict(type="StandardRoIHead", bbox_roi_extractor=_extractor(7), mask_roi_extractor=_extractor(14),
                  bbox_head=dict(type="Shared2FCBBoxHead", in_channels=256, fc_out_channels=1024, roi_feat_size=7, num_classes=80,
                                 bbox_coder=_coder((0.1, 0.1, 0.2, 0.2)), reg_class_agnostic=False, **_losses(False)),
                  mask_head=dict(type="FCNMaskHead", num_convs=4, in_channels=256, conv_out_channels=256, num_classes=80,
                                 loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0))),
    train_cfg=dict(rpn=_sampling(0.7, 0.3, 0.3, 256, 0.5, False) | dict(allowed_border=-1), rpn_proposal=_proposals(2000),
                   rcnn=_sampling(0.5, 0.5, 0.5, 512, 0.25, True) | dict(mask_size=28)),
    test_cfg=dict(rpn=_proposals(1000), rcnn=dict(score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5)))
EXTRACTORS = ("bbox_roi_extractor", "mask_roi_extractor")
FREE = {"neck.in_channels", "neck.out_channels", "neck.num_outs", "rpn_head.in_channels", "rpn_head.feat_channels", "rpn_head.bbox_coder.target_stds",
        "rpn_head.anchor_generator.scales", "rpn_head.anchor_generator.ratios", "rpn_head.anchor_generator.strides",
        "roi_head.mask_head.num_convs", "roi_head.mask_head.in_channels", "roi_head.mask_head.conv_out_channels", "roi_head.mask_head.num_classes",
        "roi_head.bbox_head.bbox_coder.target_stds", "test_cfg.rcnn.score_thr", "test_cfg.rcnn.nms.iou_threshold", "test_cfg.rcnn.max_per_img"} | {
    f"roi_head.{part}.{key}" for part in EXTRACTORS for key in ("roi_layer.sampling_ratio", "out_channels", "featmap_strides", "finest_scale")} | {
    f"roi_head.bbox_head.{key}" for key in ("in_channels", "fc_out_channels", "num_classes")} | {
    f"{part}.{key}" for part in ("train_cfg.rpn_proposal", "test_cfg.rpn") for key in ("nms_pre", "max_per_img", "nms.iou_threshold")} | {
    f"train_cfg.{part}.{key}" for part in ("rpn", "rcnn") for key in (
        "assigner.pos_iou_thr", "assigner.neg_iou_thr", "assigner.min_pos_iou", "assigner.match_low_quality", "sampler.num", "sampler.pos_fraction")}


def build(o):
    """The Mask R-CNN of MMDetection's options `o`: {"backbone", "neck", "rpn_head", "roi_head", "train_cfg", "test_cfg"} with the config's spelling."""
    backbone = dense.backbone(o["backbone"])
    parts = dense.filled(PARTS, {name: o[name] for name in PARTS}, FREE)
    neck, rpn, roi, train, test = parts.values()
    generator, extractor, box, mask = rpn["anchor_generator"], roi["bbox_roi_extractor"], roi["bbox_head"], roi["mask_head"]
    strides, channels = generator["strides"], neck["out_channels"]
    shared = {f"roi_head__{name}__{key}": wanted for name in EXTRACTORS for key, wanted in (
        ("out_channels", channels), ("featmap_strides", strides[:4]), ("finest_scale", extractor["finest_scale"]),
        ("roi_layer__sampling_ratio", extractor["roi_layer"]["sampling_ratio"]))}
    dense.same(parts, neck__in_channels=tuple(dense.widths(backbone)), neck__num_outs=len(strides), rpn_head__in_channels=channels,
               roi_head__bbox_head__in_channels=channels, roi_head__mask_head__in_channels=channels, roi_head__mask_head__num_classes=box["num_classes"],
               **shared)
    if len(generator["scales"]) != 1:
        raise ValueError(f"rpn_head.anchor_generator.scales={generator['scales']}: expected one scale")
    return MaskRCNN(
        backbone=backbone, num_classes=checks.count("roi_head.bbox_head.num_classes", box["num_classes"]), channels=channels,
        rpn_channels=rpn["feat_channels"], fc_channels=box["fc_out_channels"], mask_channels=mask["conv_out_channels"], mask_depth=mask["num_convs"],
        strides=strides, anchor_scale=generator["scales"][0], anchor_ratios=generator["ratios"], rpn_std=rpn["bbox_coder"]["target_stds"],
        box_std=box["bbox_coder"]["target_stds"], finest=extractor["finest_scale"], ratio=extractor["roi_layer"]["sampling_ratio"],
        proposals=_chosen(test["rpn"]), training_proposals=_chosen(train["rpn_proposal"]),
        detections=Detections(test["rcnn"]["score_thr"], test["rcnn"]["max_per_img"], test["rcnn"]["nms"]["iou_threshold"]),
        rpn_sampling=_sampled(train["rpn"]), box_sampling=_sampled(train["rcnn"]))


def _chosen(o):
    return Proposals(o["nms_pre"], o["max_per_img"], o["nms"]["iou_threshold"])


def _sampled(o):
    assigner, sampler = o["assigner"], o["sampler"]
    return Sampling(assigner["pos_iou_thr"], assigner["neg_iou_thr"], assigner["min_pos_iou"], sampler["num"], sampler["pos_fraction"],
                    assigner["match_low_quality"])


def of(model):
    """The family of a model by its backbone."""
    return dense.over(model, lambda path: ("roi_head." if path[0] in ("bbox_head", "mask_head") else "") + dotted(path))
