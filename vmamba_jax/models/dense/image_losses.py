"""A detector's losses of each image alone, as a pure function of [0, 1] images: what attacks on detection ascend."""
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vmamba_jax.models.dense import detection_losses


def image_losses(detector, variables):
    """A function `(images, objects, keys, proposals=None) -> ({name: (b,)}, proposals)`; a pytree whose leaves are the weights.

    Its arguments:
        images: (b, H, W, C) in [0, 1].
        objects: as of `MaskRCNN.losses`, padded; perhaps with "size" (b, 2), height and width of each image without its padding.
        keys: (b,) random keys of the samples of anchors and proposals; equal keys draw equal samples of equal candidates.
        proposals: (boxes (b, n, 4), valid (b, n)), such as the function returns; None: those of these images.

    Proposals are constants of the gradient, as in training.

    Args:
        detector: `Classifier` around a `MaskRCNN`.
        variables: the model's.
    """
    return jax.tree_util.Partial(_ImageLosses(detector), variables)


@dataclasses.dataclass(frozen=True)
class _ImageLosses:
    """The function of `image_losses`, with the weights as its first argument."""
    detector: Any

    def __call__(self, variables, images, objects, keys, proposals=None):
        model, sizes = self.detector.model, objects.get("size")
        detection_losses.check(objects, images, model.num_classes)
        x = padded(self.detector.normalize(images), sizes)
        sizes = jnp.tile(jnp.asarray(images.shape[1:3]), (len(images), 1)) if sizes is None else jnp.asarray(sizes)
        maps = model.apply(variables, x, method="pyramid")
        if proposals is None:
            proposals = model.apply(variables, maps, sizes, method="proposed")
        objects = {name: objects[name] for name in detection_losses.OBJECTS}
        return model.apply(variables, maps, sizes, objects, None, proposals, keys, method="losses_of"), proposals


def padded(x, sizes):
    """Normalized images (b, H, W, C) with zeros outside of their sizes (b, 2), as a detector expects them; sizes=None: unchanged."""
    if sizes is None:
        return x
    rows, columns = (jnp.arange(length) < sizes[:, axis, None] for axis, length in ((0, x.shape[1]), (1, x.shape[2])))
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], x, 0)
