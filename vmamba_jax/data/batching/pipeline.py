"""Batches of images decoded and transformed while a model trains, on threads or in worker processes, through Grain."""
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
LISTED = 20  # bad images that an error names
_log = logging.getLogger("vmamba_jax.data")


class BadImagesError(ValueError):
    """More images did not decode than were allowed; the message lists them."""


class Pipeline(Batches):
    """`data.Batches` for images that are decoded on demand, with a random transform on the host.

    Order, epochs, shards and the content of a batch are those of `Batches`: the global batch is the same for every number of hosts, and
    `pipeline[t]` is a pure function of t. The transform draws from a generator of its own for every example, seeded by (seed, epoch,
    position), so nothing depends on threads, workers or on what was read before.

    transform: `transform(image, rng) -> uint8 (H, W, C)`, all of one shape; image: what `source.picture` gives (a loaded PIL.Image, or
        uint8 (H, W, C)), before the source's own resize and crop; rng: numpy.random.Generator. None: that resize and crop.
    workers: processes that make whole batches; 0: none. They are started ("spawn") by `iterate`, so a program that uses them guards its
        main part by `if __name__ == "__main__"`, and source and transform must pickle.
    threads: decoding threads, in each worker; None: the processors shared out among the workers.
    max_bad: images that may fail to decode. Each is logged, kept by name in `bad`, and replaced by the next good one in the source
        (whose position the batch's "index" gives); one more raises BadImagesError. Each host counts its own.
    uint8: leave images as they are, uint8 in [0, 255], a quarter of the memory; `training.train`, by `data.on_device`, makes them float32
        in [0, 1] on the device.
    """

    def __init__(self, source, batch_size, *, seed=0, shuffle=True, shard=(0, 1), drop_remainder=True, transform=None, workers=0,
                 threads=None, max_bad=10, uint8=False):
        super().__init__(source, batch_size, seed=seed, shuffle=shuffle, shard=shard, drop_remainder=drop_remainder)
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be callable, transform(image, rng), got {transform!r}")
        self.transform, self.uint8 = transform, bool(uint8)
        self.workers, self.max_bad = checks.count("workers", workers, 0), checks.count("max_bad", max_bad, 0)
        share = max(1, (os.cpu_count() or 1) // max(1, self.workers))
        self.threads = share if threads is None else checks.count("threads", threads)
        self.bad = {}  # position -> message, of the batches handed out so far

    def __getitem__(self, t):
        return self._finish(*self._read(checks.count("t", t, 0)))

    def iterate(self, start=0, stop=None, *, depth=2):
        """A `Stream` of the batches of steps start, start + 1, ... below stop (None: without end).

        depth: batches made ahead, by each worker; without workers, by a thread (0: none).
        """
        return Stream(self, checks.count("start", start, 0), MOST_STEPS if stop is None else checks.count("stop", stop, 0),
                      checks.count("depth", depth, 1 if self.workers else 0))

    def dataset(self, start=0, stop=None, depth=2):
        """The pairs (batch with uint8 images, bad images of it) of these steps as a grain.IterDataset, with Grain's own state."""
        import grain  # slow to import, and only this needs it
        steps = grain.MapDataset.range(start, MOST_STEPS if stop is None else max(start, stop)).map(self._read)
        if not self.workers:
            return steps.to_iter_dataset(grain.ReadOptions(num_threads=min(1, depth), prefetch_buffer_size=depth))
        _mark_flags_parsed()
        steps = steps.map(_pack).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        return steps.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=depth)).map(_unpack)

    def _read(self, t):
        """Step t's batch, and the images that were bad in it as [(position, message)]."""
        examples = list(zip(*(part.tolist() for part in self._examples(t)), strict=True))
        if self.threads < 2 or len(examples) < 2:
            made = [self._example(*example) for example in examples]
        else:
            with concurrent.futures.ThreadPoolExecutor(min(self.threads, len(examples)), "decode") as pool:
                made = list(pool.map(self._example, *zip(*examples, strict=True)))
        images, labels, indices, bad = zip(*made, strict=True)
        if shapes := {image.shape for image in images} - {images[0].shape}:
            raise ValueError(f"images of one batch must have one shape, got {images[0].shape} and {shapes.pop()}: give the source size=N, "
                             "or a transform to one size")
        batch = {"image": np.stack(images), "label": np.array(labels, np.int32), "index": np.array(indices, np.int64)}
        return batch, sorted({pair for pairs in bad for pair in pairs})

    def _example(self, epoch, position):
        """(image, label, position, [(position, message)]); the last are the bad images in whose place this one stands."""
        bad, i = [], position
        while True:
            try:
                image, label = self.source[i] if self.transform is None else self.source.picture(i)
                break
            except BadImageError as error:
                bad.append((i, str(error)))
                i = self.source.successor(i)
                if len(bad) > self.max_bad or i == position:
                    raise _too_many(dict(bad), self.max_bad) from error
        if self.transform is not None:
            image = np.asarray(self.transform(image, generator(self.seed, epoch, i)))
            if image.dtype != np.uint8 or image.ndim != 3:
                raise TypeError(f"transform must return uint8 (H, W, C), got shape {image.shape} of {image.dtype} from {self.transform!r}")
        return image, label, i, bad

    def _finish(self, batch, bad):
        """Count a batch's bad images, and turn its own into floats."""
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
    """Batches of a pipeline in order, made ahead; `get_state()` after any of them is JSON-able and `set_state` goes on exactly there.

    The state holds the next step, the bad images known so far, and what the order depends on; not the number of workers, threads or
    hosts, which may change. Since `pipeline[t]` is a function of t, `pipeline.iterate(t)` goes on exactly there too.
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
        return {"step": self.step, "bad": sorted(map(list, self.pipeline.bad.items())), "order": self._order()}

    def set_state(self, state):
        """Go on after the batch that `state` was taken after; ValueError if it is not of such a pipeline."""
        if not isinstance(state, dict) or state.keys() != self.get_state().keys():
            raise ValueError(f"state must be what get_state gives, a dict of {', '.join(self.get_state())}, got {state!r}")
        if (given := state["order"]) != (own := self._order()):
            differing = [f"{name} was {given.get(name)!r}, is {own[name]!r}" for name in own if given.get(name) != own[name]]
            raise ValueError(f"the state belongs to another pipeline: {'; '.join(differing)}")
        self.close()
        self.step = checks.count("step", state["step"], 0)
        self.pipeline.bad = {i: message for i, message in state["bad"]}

    def close(self):
        """End threads and workers; reading again starts them anew."""
        made, self._made = self._made, None
        if made is not None:
            made.close()

    def _order(self):
        p = self.pipeline
        return {"seed": p.seed, "batch_size": p.batch_size, "shuffle": p.shuffle, "drop_remainder": p.drop_remainder,
                "examples": len(p.source), "steps_per_epoch": p.steps_per_epoch}


def generator(seed, epoch, position):
    """The random numbers of one example in one epoch."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch, position, 2))))


def _pack(read):
    """Arrays as bytes, which go through the worker's pipe: of arrays Grain makes shared memory, scarce in containers and left behind."""
    batch, bad = read
    return {name: (x.tobytes(), x.dtype.str, x.shape) for name, x in batch.items()}, bad


def _unpack(packed):
    batch, bad = packed
    return {name: np.frombuffer(bytearray(raw), dtype).reshape(shape) for name, (raw, dtype, shape) in batch.items()}, bad


def _too_many(bad, allowed):
    listed = "".join(f"\n  {message}" for _, message in sorted(bad.items())[:LISTED])
    more = f"\n  and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    return BadImagesError(f"{len(bad)} images do not decode, max_bad={allowed} may:{listed}{more}")


def _mark_flags_parsed():
    """Grain reads absl's flags before it starts workers, which raises where the program parsed none."""
    from absl import flags
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


_open_streams = weakref.WeakSet()


@atexit.register
def _close_streams():
    """Workers left to the interpreter's end complain about modules that are gone."""
    for stream in list(_open_streams):
        stream.close()
