"""Batches for the trainer, plus the loader state that a checkpoint must save."""
import contextlib
import json
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from vmamba_jax import data


class DeviceBatch(NamedTuple):
    """One batch on the device.

    Attributes:
        batch: {name: array on the device}.
        index: (b,) positions of the examples in the data set, on the host, or None.
        state: the loader's state after this batch, or None.
    """
    batch: Any
    index: Any
    state: Any


def feed(batches, start, steps, place, check=None):
    """Yields the batches of the steps `start` to `steps` - 1, each a `DeviceBatch`.

    Args:
        batches: `batches[t]` is step t's batch; `batches.iterate(start, stop)`, if there is such a method, reads them ahead. Or an iterable
            with `get_state` and `set_state`, whose JSON-able state is read after every batch.
        start: number of steps done before.
        steps: total number of steps.
        place: puts a batch on the device, see `data.on_device`; an entry "index" stays on the host.
        check: called with each batch on the host; raises for one that cannot be trained on. None: no check.

    Raises:
        ValueError: the iterable ends before the last step.
    """
    with contextlib.closing(_reader(batches, start, steps)) as reader:
        for t in range(start, steps):
            try:
                batch = next(reader)
            except StopIteration:
                raise ValueError(f"batches ended after {t} of {steps} steps: expected one batch per step") from None
            if check is not None:
                check(batch)
            state = batches.get_state() if has_state(batches) else None
            yield DeviceBatch(*data.on_device(batch, place), state)


def _reader(batches, start, steps):
    """A generator of the remaining batches; closing it also closes the loader's iterator."""
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
    """Whether a loader has a state of its own."""
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
    """Sets a loader's state from a checkpoint.

    Args:
        batches: as of `feed`.
        states: as `gather` returned them; None: the checkpoint has none.
        where: the checkpoint's name, for the messages.

    Raises:
        ValueError: only one of checkpoint and loader has a state, or the checkpoint is of another number of processes.
    """
    if has_state(batches) != (states is not None):
        raise ValueError(f"{where} was saved {'without' if states is None else 'with'} a loader's state: expected batches that "
                         f"{'are read by number' if states is None else 'have get_state and set_state'}")
    if states is not None:
        if len(states) != jax.process_count():
            raise ValueError(f"{where} has the loader states of {len(states)} processes: expected {jax.process_count()}, as this run has")
        batches.set_state(states[jax.process_index()])
