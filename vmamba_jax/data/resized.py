"""A source whose images are resized, for sets of one fixed size."""
import functools

import numpy as np
from PIL import Image

from vmamba_jax.core import checks
from vmamba_jax.data.source import Source, check_source, digest


class Resized(Source):
    """The examples of another source at another size, resized bilinearly with antialiasing, as Pillow does.

    Args:
        source: the other source, of images of one size.
        size: side in pixels.
    """

    def __init__(self, source, size):
        check_source(source)
        self.source, self.size = source, checks.count("size", size)
        if source.image_shape is None:
            raise ValueError(f"source={source!r}: expected images of one size")
        super().__init__(source.name, source.split, source.classes, (size, size, source.image_shape[-1]))

    labels = property(lambda self: self.source.labels, doc="(n,) int32.")

    def __len__(self):
        return len(self.source)

    def epochs(self, batch_size, seed, shuffle, drop_remainder):
        return self.source.epochs(batch_size, seed, shuffle, drop_remainder)

    def gather(self, indices):
        images, labels = self.source.gather(indices)
        if images.shape[1:] == self.image_shape:
            return images, labels
        found = np.empty((len(images), *self.image_shape), np.uint8)
        for i, image in enumerate(images):
            for c in range(image.shape[-1]):
                found[i, ..., c] = Image.fromarray(image[..., c]).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return found, labels

    @functools.cached_property
    def fingerprint(self):
        return digest(self.source.fingerprint, self.size)
