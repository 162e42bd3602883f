"""Batches as a function of the step, sharding, and reading ahead."""
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmamba_jax import data


def numbered(n, classes=3):
    """A source whose image i has the value i."""
    images = np.zeros((n, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 1, 1, 0] = np.arange(n) % 256, np.arange(n) // 256
    return data.Arrays(images, np.arange(n) % classes)


def test_batch_values():
    source = numbered(300)
    batch = data.Batches(source, 7)[5]
    assert batch["image"].dtype == np.float32 and batch["label"].dtype == np.int32 and batch["index"].dtype == np.int64
    assert (batch["image"] == source.images[batch["index"]].astype(np.float32) / 255).all()
    assert (batch["label"] == source.labels[batch["index"]]).all()
    assert np.float32(1) == data.Batches(data.Arrays(np.full((1, 1, 1, 1), 255, np.uint8), [0]), 1)[0]["image"].max()


@given(n=st.integers(1, 50), size=st.integers(1, 12), shards=st.integers(1, 4), seed=st.integers(0, 2**70), shuffle=st.booleans())
@settings(max_examples=60, deadline=None)
def test_epochs_and_shards(n, size, shards, seed, shuffle):
    source, b = numbered(n), size * shards
    if b > n:
        with pytest.raises(ValueError, match="batch_size=.*: expected at most .* do not fill one batch"):
            data.Batches(source, b)
        return
    whole = data.Batches(source, b, seed=seed, shuffle=shuffle)
    parts = [data.Batches(source, b, seed=seed, shuffle=shuffle, shard=(i, shards)) for i in range(shards)]
    assert whole.steps_per_epoch == n // b
    for epoch in range(3):
        steps = range(epoch * whole.steps_per_epoch, (epoch + 1) * whole.steps_per_epoch)
        seen = np.concatenate([whole[t]["index"] for t in steps])
        assert len(np.unique(seen)) == len(seen) == n // b * b
        assert np.array_equal(seen, np.concatenate([part[t]["index"] for t in steps for part in parts]))
        if not shuffle:
            assert np.array_equal(seen, np.arange(len(seen)))


def test_random_access_equals_iteration():
    source = numbered(23)
    batches = data.Batches(source, 5, seed=1)
    later = batches[10_000]["index"]
    stream = [batch["index"] for batch in batches.iterate(3, 17)]
    assert len(stream) == 14
    fresh = data.Batches(source, 5, seed=1)
    assert all(np.array_equal(fresh[t]["index"], stream[t - 3]) for t in reversed(range(3, 17)))
    assert np.array_equal(fresh[10_000]["index"], later)
    assert not np.array_equal(data.Batches(source, 5, seed=2)[3]["index"], stream[0])
    assert not np.array_equal(batches[0]["index"], batches[4]["index"])  # epochs differ
    for t, batch in zip(range(9), batches, strict=False):
        assert np.array_equal(batch["index"], batches.indices(t))


def test_short_last_batch():
    batches = data.Batches(numbered(10), 4, drop_remainder=False)
    assert batches.steps_per_epoch == 3 and [len(batches[t]["label"]) for t in range(4)] == [4, 4, 2, 4]
    assert sorted(np.concatenate([batches[t]["index"] for t in range(3, 6)])) == list(range(10))


@pytest.mark.parametrize("size, lengths", [(4, [4, 4, 2]), (5, [5, 5]), (100, [10])])
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_epoch(size, lengths, depth):
    seen = list(data.epoch(numbered(10), size, depth=depth))
    assert [len(batch["label"]) for batch in seen] == lengths
    assert np.array_equal(np.concatenate([batch["index"] for batch in seen]), np.arange(10))


@pytest.mark.parametrize("options, error, message", [
    ({"batch_size": 0}, ValueError, "batch_size"), ({"batch_size": 2.0}, TypeError, "batch_size"), ({"seed": -1}, ValueError, "seed"),
    ({"shard": (2, 2)}, ValueError, "shard"), ({"shard": (-1, 2)}, ValueError, "shard"), ({"shard": 3}, TypeError, "shard"),
    ({"shard": (0, 3)}, ValueError, "multiple of the 3 shards"), ({"shard": (0, 2), "drop_remainder": False}, ValueError, "drop_remainder"),
    ({"batch_size": 12}, ValueError, "batch_size=.*: expected at most the .* do not fill one batch"), ({"source": [1, 2]}, TypeError, "data.Source"),
])
def test_bad_batches(options, error, message):
    with pytest.raises(error, match=message):
        data.Batches(**{"source": numbered(10), "batch_size": 4} | options)


@pytest.mark.parametrize("t, error", [(-1, ValueError), (1.0, TypeError), (slice(2), TypeError)])
def test_bad_step(t, error):
    with pytest.raises(error, match="t=.*: expected an integer >= 0"):
        data.Batches(numbered(10), 4)[t]


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_prefetch_order():
    made = []
    stream = data.prefetch((made.append(i) or i for i in range(50)), depth=3)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made == [0, 1, 2, 3]
    assert list(stream) == list(range(1, 50))
    assert not prefetch_threads()


@pytest.mark.parametrize("depth", [0, 2])
def test_prefetch_raises_in_order(depth):
    def items():
        yield from range(3)
        raise RuntimeError("at three")
    stream, seen = data.prefetch(items(), depth), []
    with pytest.raises(RuntimeError, match="at three"):
        for item in stream:
            seen.append(item)
    assert seen == [0, 1, 2] and not prefetch_threads()


@pytest.mark.parametrize("leave", ["close", "break", "drop"])
def test_prefetch_closes_early(leave):
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)
    stream = data.prefetch(items(), 3)
    for _ in stream:
        break
    assert prefetch_threads()
    if leave == "close":
        stream.close()
    del stream, _
    assert closed == [True] and not prefetch_threads()


def test_prefetch_checks_depth_at_once():
    for depth, error in ((-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="depth"):
            data.prefetch([1], depth)
