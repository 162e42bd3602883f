"""Batches of images with label maps, and with instances padded to one number, through Grain."""
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.data.batching.pipeline import Pipeline, generator
from vmamba_jax.data.decoding.images import BadImageError
from vmamba_jax.data.dense import DenseSource


class DensePipeline(Pipeline):
    """`data.Pipeline` for a dense source with a joint transform of image, label map and instances.

    A batch is {"image": (b, H, W, C) float32 in [0, 1], "label": (b, H, W) int32, "index": (b,) int64}; with `instances` also {"boxes": (b, n, 4)
    float32, "classes": (b, n) int32, "masks": (b, n, H, W) bool, "valid": (b, n) bool}, and of padded images "size": (b, 2) int32, without the padding.
    Places that are not valid have boxes, classes and masks of 0.

    Args:
        source: a `data.DenseSource`.
        instances: n, the number of places for instances; 0: none. Crowd regions are left out.
        transform: `transform(example, rng) -> example` of `data.transforms.joint`, to one size; None: the examples as they are.
        batch_size, seed, shuffle, shard, drop_remainder, workers, threads, max_bad, uint8: see `data.Pipeline`.

    Raises, on reading:
        ValueError: an image with more instances than places; the message names it.
    """

    def __init__(self, source, batch_size, *, instances=0, **options):
        super().__init__(source, batch_size, **options)
        if not isinstance(source, DenseSource):
            raise TypeError(f"source={source!r}: expected a data.DenseSource")
        self.instances = checks.count("instances", instances, 0)
        if instances and not source.has_instances:
            raise ValueError(f"instances={instances} with {source!r}: expected 0, as the set has none")

    def _arrays(self, epoch, i):
        found = self.source.example(i)
        if self.transform is not None:
            try:
                found = self.transform(found, generator(self.seed, epoch, i))
            except BadImageError as error:
                raise BadImageError(f"image {i} of {self.source!r}: {error}") from error
        image, label = found["image"], found["label"]
        if image.dtype != np.uint8 or image.ndim != 3 or label.shape != image.shape[:2]:
            raise TypeError(f"transform={self.transform!r}: expected it to return a uint8 image (H, W, C) and a label map (H, W), got shapes {image.shape} "
                            f"of {image.dtype} and {label.shape}")
        return {"image": image, "label": label.astype(np.int32)} | (self._padded(found, i) if self.instances else {})

    def _padded(self, found, i):
        real = np.flatnonzero(~found["crowd"])
        if len(real) > self.instances:
            raise ValueError(f"instances={self.instances}: expected at least {len(real)}, as image {i} of {self.source!r} has")
        padded = {"valid": np.arange(self.instances) < len(real)} | {name: found[name] for name in ("size",) if name in found}
        for name, dtype in (("boxes", np.float32), ("classes", np.int32), ("masks", bool)):
            padded[name] = np.zeros((self.instances, *found[name].shape[1:]), dtype)
            padded[name][:len(real)] = found[name][real]
        return padded
