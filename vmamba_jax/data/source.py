"""Sources of labeled images: in memory, decoded on demand, or a subset of another source."""
import abc
import concurrent.futures
import functools
import hashlib
import os

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.data import splits
from vmamba_jax.data.epochs import Epochs

MOST_CLASSES = 1 << 16  # that a set without names of its classes may have; one wrong label of 2**40 would name as many


class Source(abc.ABC):
    """A fixed, indexable set of labeled images.

    `len(source)` is the number of examples; `source[i]` returns (uint8 image (H, W, C), int label).

    Attributes:
        name, split: of the data set.
        classes: tuple of class names; label k is classes[k].
        image_shape: (H, W, C), or None if it varies.
        labels: (n,) int32.
        fingerprint: SHA-256 hex digest of the data, which identifies the set in results.
    """

    def __init__(self, name, split, classes, image_shape):
        self.name, self.split = name, split
        self.classes = tuple(map(str, classes))
        self.image_shape = None if image_shape is None else tuple(map(int, image_shape))

    @abc.abstractmethod
    def __len__(self): ...

    @abc.abstractmethod
    def gather(self, indices):
        """The examples at (b,) integer positions: images (b, H, W, C) uint8, labels (b,) int32."""

    @property
    @abc.abstractmethod
    def labels(self): ...

    @property
    @abc.abstractmethod
    def fingerprint(self): ...

    def __getitem__(self, i):
        images, labels = self.gather([checks.count("index", i, None)])
        return images[0], int(labels[0])

    def picture(self, i):
        """(image, label) of example i before any resize or crop: uint8 (H, W, C), or a loaded PIL.Image if the source decodes files."""
        return self[i]

    def successor(self, i):
        """The position of the example that replaces example i if its image does not decode."""
        return (i + 1) % len(self)

    def epochs(self, batch_size, seed, shuffle, drop_remainder):
        """The examples of each step's global batch, see `data.epochs.Epochs`."""
        return Epochs(len(self), batch_size, seed, shuffle, drop_remainder)

    def __repr__(self):
        shape = "x".join(map(str, self.image_shape)) if self.image_shape else "varying size"
        label = "/".join(filter(None, (self.name, self.split)))
        return f"<{type(self).__name__} {label}: {len(self):,} images of {shape}, {len(self.classes)} classes>"

    def _positions(self, indices):
        """`indices` as int64 in [0, len(self)); negative ones count from the end."""
        indices = np.asarray(indices)
        if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
            raise TypeError(f"indices of shape {indices.shape} and {indices.dtype}: expected one-dimensional integers")
        indices = indices.astype(np.int64)
        if indices.size and not (-len(self) <= indices.min() and indices.max() < len(self)):
            raise IndexError(f"index from {indices.min()} to {indices.max()}: expected values in [{-len(self)}, {len(self)})")
        return indices % max(len(self), 1)


class Arrays(Source):
    """A set in memory, as read-only arrays.

    Args:
        images: (n, H, W, C) uint8.
        labels: (n,) integers in [0, len(classes)).
        classes: names; None: the labels' numbers.
        name, split: of the data set.
    """

    def __init__(self, images, labels, classes=None, *, name="arrays", split=""):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"images of shape {images.shape} and {images.dtype}: expected (n, H, W, C) uint8")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(f"labels of shape {labels.shape} and {labels.dtype}: expected ({len(images)},) integers")
        if classes is None:
            if (most := int(labels.max(initial=-1))) >= MOST_CLASSES:
                raise ValueError(f"labels={most} (the highest): expected less than {MOST_CLASSES}, or classes=... with the names of all classes")
            classes = range(most + 1)
        super().__init__(name, split, classes, images.shape[1:])
        if labels.size and not (0 <= labels.min() and labels.max() < len(self.classes)):
            raise ValueError(f"labels from {labels.min()} to {labels.max()}: expected values in [0, {len(self.classes)})")
        self._images, self._labels = _frozen(images), _frozen(labels.astype(np.int32))

    images = property(lambda self: self._images, doc="(n, H, W, C) uint8, read-only.")
    labels = property(lambda self: self._labels, doc="(n,) int32, read-only.")

    def __len__(self):
        return len(self._images)

    def gather(self, indices):
        indices = self._positions(indices)
        return self._images[indices], self._labels[indices]

    @functools.cached_property
    def fingerprint(self):
        return digest(self._images.shape, self._labels.astype("<i4"), self._images)


class Decoded(Source):
    """A set whose images are decoded on demand, several at a time.

    A subclass defines `_records(indices) -> (list of records, labels)` and `_encoded(record) -> (bytes or uint8 array, name)`; the
    latter is called on any thread.

    Args:
        name, split, classes: see `Source`.
        decoder: a `decoding.images.Decoder`.
        workers: decoding threads; None: one per processor.
        image_shape: of every image if the decoder does not resize; None: it varies.
    """

    def __init__(self, name, split, classes, decoder, workers=None, image_shape=None):
        super().__init__(name, split, classes, decoder.image_shape or image_shape)
        self.decoder = decoder
        self.workers = checks.count("workers", workers) if workers is not None else os.cpu_count() or 1

    def _decode(self, record):
        return self.decoder(*self._encoded(record))

    def picture(self, i):
        records, labels = self._records(self._positions([i]))
        return self.decoder.open(*self._encoded(records[0])), int(labels[0])

    def gather(self, indices):
        records, labels = self._records(self._positions(indices))
        if min(self.workers, len(records)) < 2:
            images = [self._decode(record) for record in records]
        else:  # a pool per batch: starting its threads costs far less than decoding, and none of them outlives the batch
            with concurrent.futures.ThreadPoolExecutor(min(self.workers, len(records)), "decode") as pool:
                images = list(pool.map(self._decode, records))
        if shapes := {image.shape for image in images[1:] if image.shape != images[0].shape}:
            raise ValueError(f"{self!r}: images of one batch differ in shape ({images[0].shape}, {shapes.pop()}); load it with size=N")
        empty = (0, *(self.image_shape or (0, 0, 0)))
        return np.stack(images) if images else np.zeros(empty, np.uint8), np.asarray(labels, np.int32)


class Subset(Source):
    """The examples of another source at given positions, in that order, without a copy.

    Args:
        source: the other source.
        indices: positions in it.
    """

    def __init__(self, source, indices):
        self.indices = _frozen(source._positions(indices))
        super().__init__(source.name, _part(source, self.indices), source.classes, source.image_shape)
        self.source = source

    def __len__(self):
        return len(self.indices)

    def gather(self, indices):
        return self.source.gather(self.indices[self._positions(indices)])

    def picture(self, i):
        return self.source.picture(self.indices[i])

    @functools.cached_property
    def labels(self):
        return _frozen(self.source.labels[self.indices])

    @functools.cached_property
    def fingerprint(self):
        return digest(self.source.fingerprint, self.indices.astype("<i8"))


def subset(source, which, seed=0, *, stratified=False):
    """Some examples of a source, as a source of its own (in memory if the source is).

    Args:
        source: a `Source`.
        which: positions, in the order of the result; or a number of examples to draw without replacement, in the source's order.
        seed: of the draw; None: the first `which` examples (in a folder these are all of its first class).
        stratified: draw from every class in proportion to its size.
    """
    check_source(source)
    dense = hasattr(source, "example")
    if stratified and dense:
        raise ValueError(f"stratified=True with {source!r}: expected False, as its labels are maps")
    if np.ndim(which):
        if stratified:
            raise ValueError("stratified=True: expected False with which=positions; it applies to a number of examples")
        indices = source._positions(which)
    else:
        n = checks.count("which", which, 0)
        if n > len(source):
            raise ValueError(f"which={n}: expected at most the {len(source)} examples of {source!r}")
        if seed is None and stratified:
            raise ValueError("seed=None: expected an integer with stratified=True")
        if seed is None:
            indices = np.arange(n)
        elif stratified:
            indices, _ = splits.stratified(source.labels, (n, len(source) - n), checks.count("seed", seed, 0))
        else:
            indices = np.sort(splits.permutation(len(source), checks.count("seed", seed, 0))[:n])
    if dense:
        return source.subset(indices)
    if isinstance(source, Arrays):
        return Arrays(*source.gather(indices), source.classes, name=source.name, split=_part(source, indices))
    return Subset(source, indices)


def check_source(source):
    if not isinstance(source, Source):
        raise TypeError(f"source={type(source).__name__}: expected a data.Source (data.Arrays wraps arrays)")


def digest(*parts):
    """SHA-256 hex digest of arrays' bytes and of other values' repr, each preceded by its length."""
    state = hashlib.sha256()
    for part in parts:
        part = np.ascontiguousarray(part).data.cast("B") if isinstance(part, np.ndarray) else repr(part).encode()
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def _part(source, indices):
    return f"{source.split}[{len(indices)} of {len(source)}]"


def _frozen(array):
    view = array.view()
    view.flags.writeable = False
    return view
