"""Annotation files: foreground masks from PNG folders, COCO and Pascal VOC boxes, labelme polygons; instances and panoptic segments of COCO.

    masks, annotated = data.annotations.load("png", "annotations/", names, decoder=Decoder(size=224))
    batches = data.Annotated(data.Batches(source, 256, seed=0), masks)

Every reader raises a ValueError that names the file for anything but a well-formed annotation.
"""
from vmamba_jax.data.annotations.boxes import read_coco, read_voc
from vmamba_jax.data.annotations.instances import read_instances, read_panoptic
from vmamba_jax.data.annotations.load import READERS, foreground, load
from vmamba_jax.data.annotations.png import dilate, read_png
from vmamba_jax.data.annotations.polygons import read_labelme
from vmamba_jax.data.annotations.regions import Regions
from vmamba_jax.data.annotations.segments import encode_rle, segment_mask

__all__ = ["READERS", "Regions", "dilate", "encode_rle", "foreground", "load", "read_coco", "read_instances", "read_labelme", "read_panoptic", "read_png",
           "read_voc", "segment_mask"]
