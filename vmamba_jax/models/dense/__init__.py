"""Models of dense tasks over the backbones of classification, and the pieces that detectors are made of."""
from vmamba_jax.models.dense.boxes import anchors, decode, encode, overlaps
from vmamba_jax.models.dense.image_losses import image_losses
from vmamba_jax.models.dense.instance_masks import crop, paste
from vmamba_jax.models.dense.matching import match, sample
from vmamba_jax.models.dense.roi import level_of, roi_align, roi_align_pyramid
from vmamba_jax.models.dense.suppression import nms

__all__ = ["anchors", "crop", "decode", "encode", "image_losses", "level_of", "match", "nms", "overlaps", "paste", "roi_align", "roi_align_pyramid", "sample"]
