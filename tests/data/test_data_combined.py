"""Sources made of others: two sets in fixed proportion, and repeated augmentation."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmamba_jax import data


def arrays(n, first=0, classes=10):
    """n images with the values first, first + 1, ..."""
    images = np.zeros((n, 2, 2, 3), np.uint8)
    images[..., 0] = (first + np.arange(n))[:, None, None]
    return data.Arrays(images, np.arange(n) % classes, range(classes))


@given(real=st.integers(8, 30), extra=st.integers(1, 40), fraction=st.floats(0, 0.85), shards=st.sampled_from([1, 2, 4]),
       seed=st.integers(0, 99), shuffle=st.booleans())
@settings(max_examples=40, deadline=None)
def test_mixed_batches_and_epochs(real, extra, fraction, shards, seed, shuffle):
    source = data.Mixed(arrays(real), arrays(extra, 100), fraction)
    whole = data.Batches(source, 8, seed=seed, shuffle=shuffle)
    parts = [data.Batches(source, 8, seed=seed, shuffle=shuffle, shard=(i, shards)) for i in range(shards)]
    share = round(fraction * 8)
    assert whole.steps_per_epoch == real // (8 - share)
    drawn = np.concatenate([whole.indices(t) for t in range(2 * whole.steps_per_epoch)])
    for t in range(whole.steps_per_epoch):
        pieces = [part.indices(t) for part in parts]
        assert np.array_equal(whole.indices(t), np.concatenate(pieces)) and (whole.indices(t) >= real).sum() == share
        counts = [(piece >= real).sum() for piece in pieces]
        assert max(counts) - min(counts) <= 1
    first = drawn[:whole.steps_per_epoch * 8]
    ours = first[first < real]
    assert len(set(ours.tolist())) == len(ours) == whole.steps_per_epoch * (8 - share)
    others = drawn[drawn >= real] - real
    for start in range(0, len(others) - extra + 1, extra):
        assert sorted(others[start:start + extra]) == list(range(extra))


def test_mixed_batches_and_pipelines():
    source = data.Mixed(arrays(12), arrays(30, 100), 0.5)
    batch = data.Batches(source, 6, seed=1)[3]
    said = np.where(batch["index"] < 12, batch["index"], 100 + batch["index"] - 12)
    assert np.array_equal(np.round(batch["image"][:, 0, 0, 0] * 255), said) and (batch["label"] == source.labels[batch["index"]]).all()
    same = data.Pipeline(source, 6, seed=1, transform=lambda image, rng: np.asarray(image))[3]
    assert all(np.array_equal(same[name], batch[name]) for name in batch)
    assert len(source) == 42 and source.classes == tuple("0123456789") and source.successor(11) == 0 and source.successor(41) == 12
    assert [source.gather(i)[1].tolist() for i in ([0, 1], [12, 41], [12, 1])] == [[0, 1], [0, 9], [0, 1]]
    assert source.fingerprint != data.Mixed(arrays(12), arrays(30, 100), 0.25).fingerprint


@pytest.mark.parametrize("real, extra, fraction, error, message", [
    (arrays(4), arrays(4), 1, ValueError, "fraction"), (arrays(4), arrays(4), -0.1, ValueError, "fraction"), ([1], arrays(4), 0.5, TypeError, "real"),
    (arrays(4), arrays(0), 0.5, TypeError, "extra"), (arrays(4, classes=4), arrays(4), 0.5, ValueError, "extra with 10 classes: expected at most the 4"),
    (arrays(4), data.Arrays(np.zeros((3, 1, 1, 3), np.uint8), [0, 1, 2]), 0.5, ValueError, "extra with images of .*: expected"),
])
def test_bad_mixtures(real, extra, fraction, error, message):
    with pytest.raises(error, match=message):
        data.Mixed(real, extra, fraction)


def test_mixed_batch_sizes():
    source = data.Mixed(arrays(4), arrays(4), 0.8)
    for options, message in (({"batch_size": 2}, "fraction=.* of batch_size=2: expected at least one real"), ({"batch_size": 4, "drop_remainder": False}, "drop_remainder")):
        with pytest.raises(ValueError, match=message):
            data.Batches(source, **options)


def draw(image, rng):
    return np.full((2, 2, 3), rng.integers(256), np.uint8)


def test_repeated_epochs():
    source, plain = data.Repeated(arrays(10), 3), data.Batches(arrays(10), 4, seed=5)
    batches = data.Batches(source, 4, seed=5, drop_remainder=False)
    assert (len(source), batches.steps_per_epoch) == (10, 3)
    for epoch in range(2):
        drawn = np.concatenate([batches.indices(3 * epoch + t) for t in range(3)])
        wanted = np.concatenate([plain.indices(2 * epoch)])
        assert drawn.tolist() == np.repeat(wanted, 3)[:10].tolist()
    assert batches[0]["label"].tolist() == (batches.indices(0) % 10).tolist()


def test_repeated_transforms():
    pipeline = data.Pipeline(data.Repeated(arrays(12), 3), 6, transform=draw, threads=1)
    values = [np.round(255 * pipeline[t]["image"][:, 0, 0, 0]).astype(int).tolist() for t in range(4)]
    assert all(len(set(v)) == 6 for v in values[:2]) and len({tuple(v) for v in values}) == 4
    np.testing.assert_array_equal(pipeline[2]["image"], data.Pipeline(data.Repeated(arrays(12), 3), 6, transform=draw)[2]["image"])


def test_repeated_source():
    source = data.Repeated(arrays(4), 2)
    assert source.fingerprint != arrays(4).fingerprint and source.labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="times=0: expected an integer >= 1"):
        data.Repeated(arrays(4), 0)
    with pytest.raises(TypeError, match="source=.*: expected a data.Source"):
        data.Repeated([1, 2], 2)


def test_copies_have_their_own_epoch_numbers():
    """No (epoch, position) comes twice, so no two copies share a random generator."""
    epochs = data.Repeated(arrays(12), 3).epochs(4, 0, True, True)
    drawn = [pair for t in range(4 * epochs.steps_per_epoch) for pair in zip(*(part.tolist() for part in epochs(t)), strict=True)]
    assert len(set(drawn)) == len(drawn) == 48


def test_mixed_sets_have_orders_of_their_own():
    positions = data.Batches(data.Mixed(arrays(30), arrays(30), 0.5), 30)
    drawn = np.concatenate([positions.indices(t) for t in range(2)])
    assert drawn[drawn < 30].tolist() != (drawn[drawn >= 30] - 30).tolist()
