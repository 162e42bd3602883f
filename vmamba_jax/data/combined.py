"""Sources made of others: two sets in fixed proportion, such as real and generated images, and repeated augmentation."""
import functools

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.data.epochs import Epochs, Orders
from vmamba_jax.data.source import Source, check_source, digest
from vmamba_jax.data.subsets import numbered


class Mixed(Source):
    """A source whose batches have round(fraction * batch_size) examples of `extra` and the rest of `real`; an epoch is one pass through `real`.

    Positions of `extra` follow those of `real`. Use it as the source of `data.Batches` or `data.Pipeline`.

    Args:
        real, extra: sources with images of one shape; `extra` has no more classes than `real`, and label k means the same class in both.
        fraction: in [0, 1); Wang et al. use 0.7 and 0.8.

    Source: Wang et al. 2023, arXiv 2302.04638, for generated images.
    """

    def __init__(self, real, extra, fraction):
        for name, source in (("real", real), ("extra", extra)):
            if not isinstance(source, Source) or not len(source):
                raise TypeError(f"{name}={source!r}: expected a data.Source that is not empty")
        checks.number("fraction", fraction, low=0, below=1)
        if real.image_shape != extra.image_shape:
            raise ValueError(f"extra with images of {extra.image_shape}: expected {real.image_shape}, as in real")
        if len(extra.classes) > len(real.classes):
            raise ValueError(f"extra with {len(extra.classes)} classes: expected at most the {len(real.classes)} of real")
        if not (numbered(extra.classes) or numbered(real.classes) or extra.classes == real.classes[:len(extra.classes)]):
            differing = next(k for k, pair in enumerate(zip(extra.classes, real.classes, strict=False)) if len(set(pair)) > 1)
            raise ValueError(f"extra with class {differing} {extra.classes[differing]!r}: expected {real.classes[differing]!r}, as in real; "
                             "data.match_classes(extra, real.classes) numbers it so")
        super().__init__(f"{real.name}+{extra.name}", real.split, real.classes, real.image_shape)
        self.real, self.extra, self.fraction = real, extra, float(fraction)

    def __len__(self):
        return len(self.real) + len(self.extra)

    def gather(self, indices):
        indices = self._positions(indices)
        from_real = indices < len(self.real)
        if from_real.all():
            return self.real.gather(indices)
        if not from_real.any():
            return self.extra.gather(indices - len(self.real))
        parts = zip(self.real.gather(indices[from_real]), self.extra.gather(indices[~from_real] - len(self.real)), strict=True)
        place = np.argsort(np.argsort(~from_real, kind="stable"))
        images, labels = (np.concatenate(part)[place] for part in parts)
        return images, labels

    def picture(self, i):
        source, i = self._part(self._positions([i]).item())
        return source.picture(i)

    def successor(self, i):
        source, place = self._part(i)
        return i - place + source.successor(place)

    def epochs(self, batch_size, seed, shuffle, drop_remainder):
        extra = round(self.fraction * batch_size)
        if extra == batch_size:
            raise ValueError(f"fraction={self.fraction} of batch_size={batch_size}: expected at least one real example in a batch")
        if not drop_remainder:
            raise ValueError("drop_remainder=False: expected True for a mixed set")
        return MixedEpochs(len(self.real), len(self.extra), extra, batch_size, seed, shuffle)

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


class MixedEpochs:
    """`Epochs` of two sets side by side, at positions [0, n_real) and [n_real, n_real + n_extra).

    An epoch is one pass through the first set; the second has passes of its own. The examples of the second are spread evenly through the
    batch, so that every host's slice has its part of them.

    Args:
        n_real, n_extra: numbers of examples.
        per_batch: examples of the second set in every batch.
        batch_size: of the global batch. seed, shuffle: see `Orders`.
    """

    def __init__(self, n_real, n_extra, per_batch, batch_size, seed, shuffle):
        self._real, self._extra, self._per_batch = Orders(n_real, seed, shuffle), Orders(n_extra, seed, shuffle, path=(1,)), per_batch
        self._is_extra = np.diff(np.arange(batch_size + 1) * per_batch // batch_size).astype(bool)
        self.steps_per_epoch = n_real // (batch_size - per_batch)

    def __call__(self, t):
        epoch, step = divmod(t, self.steps_per_epoch)
        n, m = len(self._is_extra) - self._per_batch, self._per_batch
        epochs, positions = np.full(n + m, epoch), np.empty(n + m, np.int64)
        positions[~self._is_extra] = self._real(epoch)[step * n:(step + 1) * n]
        passes, places = np.divmod(np.arange(t * m, (t + 1) * m), self._extra.n)
        epochs[self._is_extra] = passes
        drawn = [self._extra(p)[places[passes == p]] for p in np.unique(passes).tolist()]
        positions[self._is_extra] = self._real.n + np.concatenate([np.zeros(0, np.int64), *drawn])
        return epochs, positions


class Repeated(Source):
    """A source whose epochs have `times` consecutive copies of every `times`-th image, for repeated augmentation.

    An epoch has as many examples as before. Use it as the source of a `data.Pipeline`, whose transform draws anew for every copy. DeiT deals
    the copies out to the devices; here they are side by side in a host's slice of the batch.

    Args:
        source: the images.
        times: copies of an image; DeiT uses three.

    Source: Hoffer et al., arXiv 1901.09335; DeiT's sampler (arXiv 2012.12877).
    """

    def __init__(self, source, times):
        check_source(source)
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


class RepeatedEpochs:
    """`Epochs` in which `times` consecutive examples are copies of one, so that an epoch has only every `times`-th image in its order.

    The epoch number of each copy is different, so that their transforms draw different numbers.
    """

    def __init__(self, n, times, batch_size, seed, shuffle, drop_remainder):
        self._inner, self._times, self._n = Epochs(n, batch_size, seed, shuffle, drop_remainder), times, n
        self.steps_per_epoch = self._inner.steps_per_epoch

    def __call__(self, t):
        epoch, step = divmod(t, self.steps_per_epoch)
        places = np.arange(step * self._inner.batch_size, min((step + 1) * self._inner.batch_size, self._n))
        images, copies = np.divmod(places, self._times)
        return epoch * self._times + copies, self._inner.order(epoch)[images]
