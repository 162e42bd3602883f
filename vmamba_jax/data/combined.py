"""A set with another one mixed in by a fixed share of every batch, such as generated images (Wang et al. 2023, arXiv 2302.04638)."""
import functools

import numpy as np

from vmamba_jax.data.epochs import MixedEpochs
from vmamba_jax.data.source import Source, digest


class Mixed(Source):
    """Batches with round(fraction * batch_size) examples of `extra`, the others of `real`; an epoch is one pass through `real`.

    real, extra: sources of the same image shape; positions of `extra` follow those of `real`, and it has no more classes, which mean
    the same. fraction: in [0, 1); 0.7 and 0.8 are Wang et al.'s. Use it as the source of `data.Batches` or `data.Pipeline`.
    """

    def __init__(self, real, extra, fraction):
        for name, source in (("real", real), ("extra", extra)):
            if not isinstance(source, Source) or not len(source):
                raise TypeError(f"{name} must be a data.Source that is not empty, got {source!r}")
        if isinstance(fraction, bool) or not 0 <= fraction < 1:
            raise ValueError(f"fraction must be in [0, 1), got {fraction!r}")
        if real.image_shape != extra.image_shape:
            raise ValueError(f"extra must have images of {real.image_shape} as real has, got {extra.image_shape}")
        if len(extra.classes) > len(real.classes):
            raise ValueError(f"extra must have no more than the {len(real.classes)} classes of real, got {len(extra.classes)}")
        super().__init__(f"{real.name}+{extra.name}", real.split, real.classes, real.image_shape)
        self.real, self.extra, self.fraction = real, extra, float(fraction)

    def __len__(self):
        return len(self.real) + len(self.extra)

    def gather(self, indices):
        indices = self._positions(indices)
        ours = indices < len(self.real)
        if ours.all():
            return self.real.gather(indices)
        if not ours.any():
            return self.extra.gather(indices - len(self.real))
        parts = zip(self.real.gather(indices[ours]), self.extra.gather(indices[~ours] - len(self.real)), strict=True)
        place = np.argsort(np.argsort(~ours, kind="stable"))
        images, labels = (np.concatenate(part)[place] for part in parts)
        return images, labels

    def picture(self, i):
        source, i = self._part(self._positions([i]).item())
        return source.picture(i)

    def successor(self, i):
        source, place = self._part(i)
        return i - place + source.successor(place)

    def epochs(self, batch_size, seed, shuffle, drop_remainder):
        share = round(self.fraction * batch_size)
        if share == batch_size:
            raise ValueError(f"fraction={self.fraction} of a batch of {batch_size} leaves no room for a real example")
        if not drop_remainder:
            raise ValueError("drop_remainder must be True for a mixed set, got False")
        return MixedEpochs(len(self.real), len(self.extra), share, batch_size, seed, shuffle)

    @functools.cached_property
    def labels(self):
        labels = np.concatenate([self.real.labels, self.extra.labels])
        labels.flags.writeable = False
        return labels

    @functools.cached_property
    def fingerprint(self):
        return digest(self.real.fingerprint, self.extra.fingerprint, self.fraction)

    def _part(self, i):
        return (self.real, i) if i < len(self.real) else (self.extra, i - len(self.real))
