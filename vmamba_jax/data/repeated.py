"""Repeated augmentation: several differently transformed copies of an image in one batch."""
import functools

from vmamba_jax.core import checks
from vmamba_jax.data.epochs import RepeatedEpochs
from vmamba_jax.data.source import Source, digest


class Repeated(Source):
    """A source whose epochs hold `times` copies of every `times`-th image, on end (Hoffer et al., arXiv 1901.09335; DeiT's sampler: three).

    An epoch has as many examples as before. Use it as the source of a `data.Pipeline`, whose transform draws anew for every copy; DeiT deals
    the copies out to the devices, here they stand side by side in a host's slice of the batch.
    """

    def __init__(self, source, times):
        if not isinstance(source, Source):
            raise TypeError(f"source must be a data.Source, got {source!r}")
        super().__init__(source.name, source.split, source.classes, source.image_shape)
        self.source, self.times = source, checks.count("times", times)

    def __len__(self):
        return len(self.source)

    def gather(self, indices):
        return self.source.gather(indices)

    def picture(self, i):
        return self.source.picture(i)

    def successor(self, i):
        return self.source.successor(i)

    def epochs(self, batch_size, seed, shuffle, drop_remainder):
        return RepeatedEpochs(len(self.source), self.times, batch_size, seed, shuffle, drop_remainder)

    @property
    def labels(self):
        return self.source.labels

    @functools.cached_property
    def fingerprint(self):
        return digest(self.source.fingerprint, self.times)
