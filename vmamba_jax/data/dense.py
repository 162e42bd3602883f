"""Sources of images with a label for every pixel, and with instances where the set has them."""
import abc
import functools

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.labels import IGNORE
from vmamba_jax.data.source import Source, check_source, digest


class DenseSource(Source):
    """A fixed, indexable set of images with label maps.

    `source.example(i)` is {"image": uint8 (H, W, C), "label": int32 (H, W), classes or `IGNORE`}; with `has_instances` also {"boxes": (n, 4)
    float32, x1 y1 x2 y2 in pixels from the upper left corner, "classes": (n,) int32, "masks": (n, H, W) bool, "crowd": (n,) bool}.

    Attributes:
        has_instances: whether the examples have instances.
        instance_classes: names of the instances' classes; () without instances.
    """
    has_instances = False
    instance_classes = ()

    @property
    def most_instances(self):
        """The largest number of instances of an example, crowd regions included, or a bound on it; 0 without instances."""
        return 0

    @abc.abstractmethod
    def example(self, i):
        """Example i as a dict; arrays of its own size."""

    def gather(self, indices):
        """Images (b, H, W, C) uint8 and label maps (b, H, W) int32, which need one size.

        Raises:
            ValueError: examples of several sizes.
        """
        found = [self.example(int(i)) for i in self._positions(indices)]
        if shapes := {each["image"].shape for each in found[1:]} - {found[0]["image"].shape}:
            raise ValueError(f"{self!r}: images of one batch differ in shape ({found[0]['image'].shape}, {shapes.pop()}); load it with size=N, or pass a "
                             "transform to one size to data.DensePipeline")
        if not found:
            shape = self.image_shape or (0, 0, 0)
            return np.zeros((0, *shape), np.uint8), np.zeros((0, *shape[:2]), np.int32)
        return np.stack([each["image"] for each in found]), np.stack([each["label"] for each in found])

    @property
    def labels(self):
        raise TypeError(f"labels of {self!r}: expected one class per image, but a dense set has label maps; use example(i)")

    def __getitem__(self, i):
        found = self.example(checks.count("index", i, None))
        return found["image"], found["label"]

    def subset(self, indices):
        """The examples at given positions, as a source of its own."""
        return DenseSubset(self, indices)


class DenseSubset(DenseSource):
    """The examples of another dense source at given positions, in that order, without a copy."""

    def __init__(self, source, indices):
        check_source(source)
        self.source, self.indices = source, source._positions(indices)
        super().__init__(source.name, f"{source.split}[{len(self.indices)} of {len(source)}]", source.classes, source.image_shape)
        self.has_instances, self.instance_classes = source.has_instances, source.instance_classes

    def __len__(self):
        return len(self.indices)

    @property
    def most_instances(self):
        return self.source.most_instances

    def example(self, i):
        return self.source.example(int(self.indices[self._positions([i])[0]]))

    def gather(self, indices):
        return self.source.gather(self.indices[self._positions(indices)])

    @functools.cached_property
    def fingerprint(self):
        return digest(self.source.fingerprint, self.indices.astype("<i8"))


class DenseArrays(DenseSource):
    """A dense set in memory.

    Args:
        images: (n, H, W, C) uint8.
        labels: (n, H, W) integers, classes or `IGNORE`.
        classes: names; label k is classes[k].
        instances: a dict of arrays for each image, see `DenseSource`; None: none.
        instance_classes: names of the instances' classes.
        name, split: of the data set.

    Raises:
        ValueError, TypeError: arrays that do not fit each other, or a label that is no class; the message names the image.
    """

    def __init__(self, images, labels, classes, *, instances=None, instance_classes=(), name="dense_arrays", split=""):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"images of shape {images.shape} and {images.dtype}: expected (n, H, W, C) uint8")
        if labels.shape != images.shape[:3] or labels.dtype.kind not in "iu":
            raise ValueError(f"labels of shape {labels.shape} and {labels.dtype}: expected {images.shape[:3]} integers, one class per pixel")
        super().__init__(name, split, classes, images.shape[1:])
        wrong = np.argwhere((labels != IGNORE) & ((labels < 0) | (labels >= len(self.classes))))
        if len(wrong):
            i, y, x = wrong[0].tolist()
            raise ValueError(f"labels[{i}, {y}, {x}]={labels[i, y, x]}: expected a class from 0 to {len(self.classes) - 1}, or {IGNORE}")
        if instances is not None and len(instances) != len(images):
            raise ValueError(f"instances of {len(instances)} images: expected {len(images)}")
        self._images, self._labels, self._instances = images, labels.astype(np.int32), instances
        self.has_instances, self.instance_classes = instances is not None, tuple(map(str, instance_classes))

    @property
    def most_instances(self):
        return max((len(each["classes"]) for each in self._instances or ()), default=0)

    images = property(lambda self: self._images, doc="(n, H, W, C) uint8.")
    label_maps = property(lambda self: self._labels, doc="(n, H, W) int32.")

    def __len__(self):
        return len(self._images)

    def example(self, i):
        i = int(self._positions([i])[0])
        return {"image": self._images[i], "label": self._labels[i]} | ({} if self._instances is None else self._instances[i])

    def gather(self, indices):
        indices = self._positions(indices)
        return self._images[indices], self._labels[indices]

    @functools.cached_property
    def fingerprint(self):
        boxes = [] if self._instances is None else [np.asarray(each["boxes"], "<f4") for each in self._instances]
        return digest(self._images.shape, self._labels.astype("<i4"), self._images, *boxes)
