"""Batches of images that threads or worker processes decode and transform while a model trains, through Grain."""
import atexit
import concurrent.futures
import logging
import os
import weakref

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.images import unit_interval
from vmamba_jax.data.batching.batches import Batches
from vmamba_jax.data.decoding.images import BadImageError

MOST_STEPS = 2**62
LISTED = 20  # bad images that an error message names
_log = logging.getLogger("vmamba_jax.data")


class BadImagesError(ValueError):
    """More images that do not decode than `max_bad`; the message lists them."""


class Pipeline(Batches):
    """`data.Batches` for images that are decoded on demand, with a random transform on the host.

    Order, epochs, shards and the content of a batch are those of `Batches`: the global batch is the same for every number of hosts, and
    `pipeline[t]` is a pure function of t. The transform draws from a generator of its own for every example, seeded by (seed, epoch,
    position), so a batch does not depend on threads, workers or earlier reads.

    Args:
        source, batch_size, seed, shuffle, shard, drop_remainder: see `Batches`.
        transform: `transform(image, rng) -> uint8 (H, W, C)`, all of one shape. image: from `source.picture`, before the source's own resize
            and crop: a loaded PIL.Image, or uint8 (H, W, C). rng: numpy.random.Generator. None: the source's own resize and crop.
        workers: processes that make whole batches; 0: none. `iterate` starts them ("spawn"), so a program that uses them guards its main part
            by `if __name__ == "__main__"`, and source and transform must pickle.
        threads: decoding threads in each worker; None: the number of processors divided by the number of workers.
        max_bad: number of images that may fail to decode. Each is logged, recorded in `bad`, and replaced by the next good one in the source
            (the batch's "index" has the position of that one); one more raises BadImagesError. Each host counts its own.
        uint8: leave images uint8 in [0, 255], a quarter of the memory; `data.on_device` converts them to float32 in [0, 1] on the device,
            and `training.train` calls it.

    Attributes:
        bad: {position: message} of the images that did not decode in the batches returned so far.
    """

    def __init__(self, source, batch_size, *, seed=0, shuffle=True, shard=(0, 1), drop_remainder=True, transform=None, workers=0,
                 threads=None, max_bad=10, uint8=False):
        super().__init__(source, batch_size, seed=seed, shuffle=shuffle, shard=shard, drop_remainder=drop_remainder)
        if transform is not None and not callable(transform):
            raise TypeError(f"transform={transform!r}: expected a function transform(image, rng), or None")
        self.transform, self.uint8 = transform, bool(uint8)
        self.workers, self.max_bad = checks.count("workers", workers, 0), checks.count("max_bad", max_bad, 0)
        self.threads = max(1, (os.cpu_count() or 1) // max(1, self.workers)) if threads is None else checks.count("threads", threads)
        self.bad = {}

    def __getitem__(self, t):
        return self._finish(*self._read(checks.count("t", t, 0)))

    def iterate(self, start=0, stop=None, *, depth=2):
        """A `Stream` of the batches of steps start, start + 1, ... below stop (None: endless).

        Args:
            start, stop: steps.
            depth: batches that each worker makes ahead; without workers, those that a thread makes ahead (0: none).
        """
        return Stream(self, checks.count("start", start, 0), MOST_STEPS if stop is None else checks.count("stop", stop, 0),
                      checks.count("depth", depth, 1 if self.workers else 0))

    def dataset(self, start=0, stop=None, depth=2):
        """A grain.IterDataset, with Grain's own state, of pairs (batch with uint8 images, its bad images) for these steps."""
        import grain  # slow to import
        steps = grain.MapDataset.range(start, MOST_STEPS if stop is None else max(start, stop)).map(self._read)
        if not self.workers:
            return steps.to_iter_dataset(grain.ReadOptions(num_threads=min(1, depth), prefetch_buffer_size=depth))
        _mark_flags_parsed()
        steps = steps.map(_pack).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        return steps.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=depth)).map(_unpack)

    def _read(self, t):
        """(batch of step t, its bad images as [(position, message)])."""
        examples = list(zip(*(part.tolist() for part in self._examples(t)), strict=True))
        if self.threads < 2 or len(examples) < 2:
            made = [self._example(*example) for example in examples]
        else:  # `pipeline[t]` uses it too; Grain's own threads, one image each, took 4 to 15 % more CPU time per image
            with concurrent.futures.ThreadPoolExecutor(min(self.threads, len(examples)), "decode") as pool:
                made = list(pool.map(self._example, *zip(*examples, strict=True)))
        found, indices, bad = zip(*made, strict=True)
        first = found[0]["image"].shape
        if shapes := {each["image"].shape for each in found} - {first}:
            raise ValueError(f"images of shapes {first} and {shapes.pop()} in one batch: expected one shape; load the source with size=N, "
                             "or pass a transform to one size")
        batch = {name: np.stack([each[name] for each in found]) for name in found[0]} | {"index": np.array(indices, np.int64)}
        return batch, sorted({pair for pairs in bad for pair in pairs})

    def _example(self, epoch, position):
        """({"image", "label"}, position, [(position, message)]); the list has the bad images that this one replaces."""
        bad, i = [], position
        while True:
            try:
                return self._arrays(epoch, i), i, bad
            except BadImageError as error:
                bad.append((i, str(error)))
                i = self.source.successor(i)
                if len(bad) > self.max_bad or i == position:
                    raise _too_many(dict(bad), self.max_bad) from error

    def _arrays(self, epoch, i):
        """Example i in one epoch as arrays that are stacked into the batch."""
        image, label = self.source[i] if self.transform is None else self._transformed(epoch, i)
        return {"image": image, "label": np.int32(label)}

    def _transformed(self, epoch, i):
        """(transformed image, label) of example i."""
        image, label = self.source.picture(i)
        try:
            image = np.asarray(self.transform(image, generator(self.seed, epoch, i)))
        except BadImageError as error:  # of a shape that cannot be resized; without the image's name
            raise BadImageError(f"image {i} of {self.source!r}: {error}") from error
        if image.dtype != np.uint8 or image.ndim != 3:
            raise TypeError(f"transform={self.transform!r}: expected it to return uint8 (H, W, C), got shape {image.shape} of {image.dtype}")
        return image, label

    def _finish(self, batch, bad):
        """Record the batch's bad images, and convert its images to [0, 1] unless `uint8`."""
        for i, message in bad:
            if i not in self.bad:
                self.bad[i] = message
                _log.warning("image %d left out: %s", i, message)
        if len(self.bad) > self.max_bad:
            raise _too_many(self.bad, self.max_bad)
        return batch if self.uint8 else {**batch, "image": unit_interval(batch["image"])}

    def __getstate__(self):
        return {**vars(self), "bad": {}}


class Stream:
    """An iterator over a pipeline's batches in order, made ahead; `set_state(state)` resumes exactly where `get_state()` was called.

    The state is JSON-able. It has the next step, the bad images so far, and the settings that determine the order; not the number of
    workers, threads or hosts, which may change. `pipeline.iterate(t)` resumes at step t too, since `pipeline[t]` is a function of t.
    """

    def __init__(self, pipeline, start, stop, depth):
        self.pipeline, self.step, self.stop, self.depth = pipeline, start, stop, depth
        self._made = None
        _open_streams.add(self)

    def __iter__(self):
        return self

    def __next__(self):
        if self._made is None:
            self._made = iter(self.pipeline.dataset(self.step, self.stop, self.depth))
        batch = self.pipeline._finish(*next(self._made))
        self.step += 1
        return batch

    def get_state(self):
        """The position after the last batch, as a dict of JSON values."""
        return {"step": self.step, "bad": sorted(map(list, self.pipeline.bad.items())), "order": self._order()}

    def set_state(self, state):
        """Resume after the batch after which `state` was saved; ValueError if it is the state of another pipeline."""
        if not isinstance(state, dict) or state.keys() != self.get_state().keys():
            raise ValueError(f"state={state!r}: expected a dict of {', '.join(self.get_state())}, as from get_state")
        if (given := state["order"]) != (own := self._order()):
            differing = [f"{name} was {given.get(name)!r}, is {own[name]!r}" for name in own if given.get(name) != own[name]]
            raise ValueError(f"state of another pipeline: {'; '.join(differing)}")
        self.close()
        self.step = checks.count("step", state["step"], 0)
        self.pipeline.bad = dict(state["bad"])

    def close(self):
        """Stop threads and workers; the next read restarts them."""
        made, self._made = self._made, None
        if made is not None:
            made.close()

    def _order(self):
        p = self.pipeline
        return {"seed": p.seed, "batch_size": p.batch_size, "shuffle": p.shuffle, "drop_remainder": p.drop_remainder,
                "examples": len(p.source), "steps_per_epoch": p.steps_per_epoch}


def generator(seed, epoch, position):
    """The random generator of one example in one epoch."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch, position, 2))))


def _pack(read):
    """Arrays as bytes, sent through the worker's pipe: Grain puts arrays into shared memory, which is scarce in containers and leaks."""
    batch, bad = read
    return {name: (x.tobytes(), x.dtype.str, x.shape) for name, x in batch.items()}, bad


def _unpack(packed):
    batch, bad = packed
    return {name: np.frombuffer(bytearray(raw), dtype).reshape(shape) for name, (raw, dtype, shape) in batch.items()}, bad


def _too_many(bad, allowed):
    listed = "; ".join(message for _, message in sorted(bad.items())[:LISTED])
    more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    return BadImagesError(f"max_bad={allowed}: expected at most that many images that do not decode, got {len(bad)}: {listed}{more}")


def _mark_flags_parsed():
    """Mark absl's flags as parsed: Grain reads them before it starts workers, which raises if the program parsed none."""
    from absl import flags
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


_open_streams = weakref.WeakSet()


@atexit.register
def _close_streams():
    """Workers that are alive when the interpreter exits print errors about modules that are already deleted."""
    for stream in list(_open_streams):
        stream.close()
