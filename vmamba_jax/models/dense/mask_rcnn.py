"""Mask R-CNN: boxes, classes and masks of the objects in images, with static numbers of proposals and detections.

Source: He et al. 2017, arXiv 1703.06870; MMDetection's MaskRCNN, with which VMamba, Swin and ConvNeXt were published on COCO.
"""
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.dense import detection_losses as losses
from vmamba_jax.models.dense.boxes import anchors, encode
from vmamba_jax.models.dense.detection import Detections, Proposals, detect, propose
from vmamba_jax.models.dense.detection_heads import BoxHead, MaskHead, RPNHead
from vmamba_jax.models.dense.detection_losses import Sampling
from vmamba_jax.models.dense.fpn import FPN
from vmamba_jax.models.dense.layers import OverBackbone
from vmamba_jax.models.dense.roi import roi_align_pyramid

SAMPLES = ("rpn", "roi")      # names of the samples of the losses
BOX_SIZE, MASK_SIZE = 7, 14   # cells of a box's features for the two heads; masks have twice as many


class MaskRCNN(OverBackbone):
    """Instance segmentation: (b, H, W, C) normalized images, zero-padded to one size -> a dict of detections.

    Attributes:
        backbone: a module whose `out_indices` return four maps.
        num_classes: number of classes.
        channels: width of the pyramid's maps.
        rpn_channels, fc_channels, mask_channels: widths of the three heads.
        mask_depth: convolutions of the mask head.
        strides: pixels per cell of the pyramid's maps.
        anchor_scale, anchor_ratios: as for `anchors`.
        rpn_std, box_std: units of both heads' deltas.
        finest: side in pixels of the boxes at which the pyramid's second map begins, halved (see `level_of`).
        ratio: sampling ratio of RoIAlign; 0: adaptive, as published.
        proposals, training_proposals: `Proposals` of inference and of the losses.
        detections: `Detections`.
        rpn_sampling, box_sampling: `Sampling` of anchors and of proposals.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype of all but the backbone.
    """
    backbone: nn.Module
    num_classes: int = 80
    channels: int = 256
    rpn_channels: int = 256
    fc_channels: int = 1024
    mask_channels: int = 256
    mask_depth: int = 4
    strides: Sequence[int] = (4, 8, 16, 32, 64)
    anchor_scale: float = 8
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    rpn_std: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
    box_std: Sequence[float] = (0.1, 0.1, 0.2, 0.2)
    finest: float = 56
    ratio: int = 0
    proposals: Proposals = Proposals()
    training_proposals: Proposals = Proposals(per_level=2000)
    detections: Detections = Detections()
    rpn_sampling: Sampling = Sampling(0.7, 0.3, 0.3, 256, 0.5)
    box_sampling: Sampling = Sampling(0.5, 0.5, 0.5, 512, 0.25)
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    def setup(self):
        self._check_backbone()
        checks.require(len(self.strides) >= 4, f"strides={tuple(self.strides)}: expected at least four, one for each map of the backbone")
        self.neck = FPN(self.channels, len(self.strides), **self._dtypes)
        self.rpn_head = RPNHead(self.rpn_channels, anchors=len(self.anchor_ratios), **self._dtypes)
        self.bbox_head = BoxHead(self.fc_channels, num_classes=self.num_classes, **self._dtypes)
        self.mask_head = MaskHead(self.mask_channels, num_classes=self.num_classes, depth=self.mask_depth, **self._dtypes)

    def __call__(self, images, sizes=None, train=False):
        """Detections in pixels of the padded images, padded to `detections.count` per image, the best first.

        Args:
            images: (b, H, W, C), normalized.
            sizes: (b, 2) integers, height and width of each image without its padding; None: the whole.
            train: drop path and the batch's statistics of the backbone.

        Returns:
            {"boxes" (b, n, 4) x1 y1 x2 y2, "scores" (b, n), "labels" (b, n), -1 where not valid, "valid" (b, n), "masks" (b, n, 28, 28)}: masks
            are probabilities inside the boxes, see `paste`.
        """
        return self.detect(self.pyramid(images, train), self._sizes(images, sizes))

    def detect(self, maps, sizes):
        """As `__call__`, from the maps of `pyramid`."""
        boxes, _, valid = self.propose(*self.rpn(maps), maps, sizes, self.proposals)
        logits, deltas = self.box_outputs(maps, boxes)
        choose = lambda *args: detect(*args[:4], self.box_std, args[4], self.detections)
        boxes, scores, labels, valid = jax.vmap(choose)(logits, deltas, boxes, valid, sizes)
        masks = self.mask_logits(maps, boxes)
        masks = jnp.take_along_axis(masks, jnp.maximum(labels, 0)[..., None, None, None], -1)[..., 0]
        masks = jnp.where(valid[..., None, None], jax.nn.sigmoid(masks), 0)
        return {"boxes": boxes, "scores": scores, "labels": labels, "valid": valid, "masks": masks}

    def losses(self, images, sizes=None, objects=None, samples=None, train=False):
        """The five losses, {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"}; their sum is minimized.

        Proposals are constants of the gradient, as in the original.

        Args:
            images, sizes, train: as for `__call__`.
            objects: {"boxes" (b, g, 4) x1 y1 x2 y2 in pixels, "labels" (b, g), "masks" (b, g, H, W) bool, "valid" (b, g) bool}, padded; or a list
                with a dict of "boxes", "labels" and "masks" for each image.
            samples: {"rpn" (b, n) indices of anchors, the finest map first, row by row, a cell's anchors fastest; "roi" (b, m) indices of the g
                objects and the proposals behind them}, -1 for none; None: drawn at random, which needs rngs={"sampling": key}.

        Raises:
            ValueError: objects of other shapes, or labels that are no classes.
        """
        objects = losses.stack(objects)
        losses.check(objects, images, self.num_classes)
        return self.losses_of(self.pyramid(images, train), self._sizes(images, sizes), objects, samples)

    def proposed(self, maps, sizes):
        """(boxes (b, n, 4), valid (b, n)) from which `losses` samples, of the maps of `pyramid`."""
        boxes, _, valid = self.propose(*self.rpn(maps), maps, sizes, self.training_proposals)
        return boxes, valid

    def losses_of(self, maps, sizes, objects, samples=None, proposals=None, keys=None):
        """As `losses`, from the maps of `pyramid` and padded objects.

        Args:
            maps, sizes, objects, samples: see `losses`.
            proposals: of `proposed`; None: those of these maps.
            keys: None, or (b,) random keys, from which each image's samples are drawn; losses are then (b,), each image's alone.
        """
        logits, deltas = self.rpn(maps)
        if proposals is None:
            boxes, _, proposed = self.propose(logits, deltas, maps, sizes, self.training_proposals)
        else:
            boxes, proposed = proposals
        boxes, objects = jax.lax.stop_gradient((boxes, {**objects, "boxes": objects["boxes"].astype(boxes.dtype)}))

        prior, all_logits, all_deltas = jnp.concatenate(self.anchors(maps, boxes.dtype)), jnp.concatenate(logits, 1), jnp.concatenate(deltas, 1)
        allowed = losses.inside([x.shape[1:3] for x in maps], self.strides, len(self.anchor_ratios), sizes)
        matched = jax.vmap(lambda *x: losses.match_anchors(self.rpn_sampling, prior, *x))(allowed, objects["boxes"], objects["valid"])
        sampled = self._sampled(samples, "rpn", self.rpn_sampling, matched, keys)
        of_rpn = lambda logits, deltas, *x: losses.rpn_losses(logits, deltas, prior, *x, self.rpn_std)
        rpn = _of_images(of_rpn, keys, all_logits, all_deltas, matched, sampled, objects["boxes"])

        boxes, matched = jax.vmap(lambda *x: losses.candidates(self.box_sampling, *x))(objects["boxes"], objects["valid"], boxes, proposed)
        sampled = self._sampled(samples, "roi", self.box_sampling, matched, keys)
        used, at = sampled >= 0, jnp.maximum(sampled, 0)
        boxes, matched = jnp.take_along_axis(boxes, at[..., None], 1), jnp.take_along_axis(matched, at, 1)
        positive = used & (matched > 0)
        labels = jnp.where(positive, losses.of_object(objects["labels"], matched), self.num_classes)
        targets = encode(boxes, losses.of_object(objects["boxes"], matched), self.box_std)
        of_all = lambda of: lambda *x: of(*(y.reshape(-1, *y.shape[2:]) for y in x))
        of_boxes = _of_images(of_all(losses.box_losses), keys, *self.box_outputs(maps, boxes), labels, used, targets)

        if samples is None:  # the sampled positives come first, and are no more than their share
            most = int(self.box_sampling.count * self.box_sampling.fraction)
            boxes, matched, labels, positive = (x[:, :most] for x in (boxes, matched, labels, positive))
        cut = losses.mask_targets(objects["masks"], matched, boxes, 2 * MASK_SIZE)
        mask = _of_images(of_all(losses.mask_loss), keys, self.mask_logits(maps, boxes), labels, positive, cut)
        return dict(zip(("loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"), (*rpn, *of_boxes, mask), strict=True))

    # ---- parts

    def pyramid(self, images, train=False):
        """The maps of all levels, the finest first."""
        return self.neck(self.backbone(images, train))

    def rpn(self, maps):
        """([logits (b, n_i), ...], [deltas (b, n_i, 4), ...]) of the anchors of each map."""
        logits, deltas = zip(*map(self.rpn_head, maps), strict=True)
        return [_wide(x) for x in logits], [_wide(x) for x in deltas]

    def anchors(self, maps, dtype):
        """[(n_i, 4), ...]: the anchors of each map."""
        return [jnp.asarray(x) for x in anchors([x.shape[1:3] for x in maps], self.strides, self.anchor_scale, self.anchor_ratios, dtype)]

    def propose(self, logits, deltas, maps, sizes, rule):
        """(boxes (b, n, 4), scores (b, n), valid (b, n)) by `rule`, from the outputs of `rpn`."""
        priors = self.anchors(maps, deltas[0].dtype)
        return jax.vmap(lambda logits, deltas, size: propose(logits, deltas, priors, self.rpn_std, size, rule))(logits, deltas, sizes)

    def box_outputs(self, maps, boxes):
        """(logits (b, n, classes + 1), deltas (b, n, classes, 4)) of boxes (b, n, 4)."""
        return tuple(_wide(x).reshape(*boxes.shape[:2], *x.shape[1:]) for x in self.bbox_head(self._features(maps, boxes, BOX_SIZE)))

    def mask_logits(self, maps, boxes):
        """(b, n, 28, 28, classes) of boxes (b, n, 4)."""
        x = _wide(self.mask_head(self._features(maps, boxes, MASK_SIZE)))
        return x.reshape(*boxes.shape[:2], *x.shape[1:])

    def _features(self, maps, boxes, size):
        index = jnp.repeat(jnp.arange(len(boxes)), boxes.shape[1])
        return roi_align_pyramid(maps[:4], boxes.reshape(-1, 4), index, size, self.strides[:4], self.finest, self.ratio)

    def _sampled(self, samples, name, rule, matched, keys):
        if samples is not None:
            return jnp.asarray(samples[name])
        if keys is None:
            keys = jax.random.split(self.make_rng("sampling"), len(matched))
        else:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, SAMPLES.index(name)))(keys)
        return jax.vmap(rule.sample)(keys, matched)

    def _sizes(self, images, sizes):
        checks.images(images, self.in_channels)
        if sizes is None:
            return jnp.tile(jnp.asarray(images.shape[1:3]), (len(images), 1))
        if jnp.shape(sizes) != (len(images), 2) or not jnp.issubdtype(jnp.asarray(sizes).dtype, jnp.integer):
            raise ValueError(f"sizes of shape {jnp.shape(sizes)}: expected integers ({len(images)}, 2), height and width of each image")
        return jnp.asarray(sizes)


def _of_images(of, keys, *arrays):
    """`of` all images' arrays (b, ...) together; with keys of the images, of each image's alone, stacked."""
    return of(*arrays) if keys is None else jax.vmap(lambda *x: of(*(y[None] for y in x)))(*arrays)


def _wide(x):
    """`x` in at least float32, in which boxes and losses are computed."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
