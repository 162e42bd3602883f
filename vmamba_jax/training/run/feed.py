"""The batches of a run, from either kind of loader, with what a checkpoint must keep of it."""
import contextlib
import json
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from vmamba_jax import data


class Fed(NamedTuple):
    """One batch made ready. batch: arrays on the device; index: (b,) examples' numbers or None; state: the loader's after this batch."""
    batch: Any
    index: Any
    state: Any


def feed(batches, start, steps, place):
    """Yield the batches of the steps `start` to `steps` - 1 as `Fed`.

    batches: `batches[t]` is step t's batch, and `batches.iterate(start, stop)`, where there is one, reads them ahead; or an object with `get_state` and `set_state`, which is iterated, its state (JSON-able) taken after
    every batch. place: puts a batch on the device, see `data.on_device`; an entry "index" stays on the host.
    """
    with contextlib.closing(_reader(batches, start, steps)) as reader:
        for t in range(start, steps):
            try:
                batch = next(reader)
            except StopIteration:
                raise ValueError(f"batches ended after {t} of {steps} steps") from None
            state = batches.get_state() if has_state(batches) else None
            yield Fed(*data.on_device(batch, place), state)


def _reader(batches, start, steps):
    """A generator of the batches that are left; closing it ends what a loader started for them."""
    if start == steps:
        return
    if has_state(batches):
        iterator = iter(batches)
    else:
        iterator = batches.iterate(start, steps) if hasattr(batches, "iterate") else map(batches.__getitem__, range(start, steps))
    try:
        yield from iterator
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def has_state(batches):
    """Whether a loader keeps its place itself."""
    return hasattr(batches, "get_state") and hasattr(batches, "set_state")


def gather(state):
    """The loader states of all processes, first to last, for one checkpoint. All processes must call it together."""
    if jax.process_count() == 1:
        return [state]
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    texts = multihost_utils.process_allgather(np.pad(text, (0, int(sizes.max()) - len(text))))
    return [json.loads(bytes(text[:size])) for text, size in zip(texts, sizes, strict=True)]


def restore(batches, states, where):
    """Give a loader its state back; `states` as of `gather`, None where the checkpoint `where` has none.

    Raises ValueError where checkpoint and loader, or the numbers of processes, do not belong together.
    """
    if has_state(batches) != (states is not None):
        raise ValueError(f"{where} was saved {'without' if states is None else 'with'} a loader's state, but batches "
                         f"{'keeps one' if has_state(batches) else 'is read by number'}")
    if states is not None:
        if len(states) != jax.process_count():
            raise ValueError(f"{where} holds the loader states of {len(states)} processes; this run has {jax.process_count()}")
        batches.set_state(states[jax.process_index()])
