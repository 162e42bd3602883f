"""Batches with a foreground mask for every image."""
import numpy as np

from vmamba_jax.core import checks


class Annotated:
    """Another set's batches with "mask" (b, H, W) bool, the masks of their images by position.

    Args:
        batches: `data.Batches`, or anything whose `batches[t]` has "image" and "index".
        masks: (n, H, W) bool for every position of the source; 1 everywhere for an image without annotation.

    Raises:
        ValueError: masks that do not fit source or images.
    """

    def __init__(self, batches, masks):
        masks = np.asarray(masks)
        if masks.ndim != 3 or masks.dtype != bool:
            raise ValueError(f"masks of shape {masks.shape} and {masks.dtype}: expected (n, H, W) bool")
        n = len(batches.source)
        shape = batches.source.image_shape
        if len(masks) != n or (shape is not None and masks.shape[1:] != tuple(shape[:2])):
            raise ValueError(f"masks.shape={masks.shape}: expected {n} masks{'' if shape is None else f' of {shape[0]} x {shape[1]}'}, as the images")
        self.batches, self.masks = batches, masks

    source = property(lambda self: self.batches.source)
    steps_per_epoch = property(lambda self: self.batches.steps_per_epoch)

    def __getitem__(self, t):
        batch = self.batches[checks.count("t", t, 0)]
        return {**batch, "mask": self.masks[batch["index"]]}
