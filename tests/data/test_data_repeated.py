"""Several copies of an image in an epoch, each transformed by draws of its own."""
import numpy as np
import pytest

from vmamba_jax import data


def numbered(n):
    images = np.zeros((n, 2, 2, 1), np.uint8)
    images[:] = np.arange(n)[:, None, None, None]
    return data.Arrays(images, np.arange(n) % 3, range(3))


def draw(image, rng):
    return np.full((2, 2, 1), rng.integers(256), np.uint8)


def test_copies_stand_side_by_side_and_epochs_keep_their_length():
    source, plain = data.Repeated(numbered(10), 3), data.Batches(numbered(10), 4, seed=5)
    batches = data.Batches(source, 4, seed=5, drop_remainder=False)
    assert (len(source), batches.steps_per_epoch) == (10, 3)
    for epoch in range(2):
        drawn = np.concatenate([batches.indices(3 * epoch + t) for t in range(3)])
        wanted = np.concatenate([plain.indices(2 * epoch)])
        assert drawn.tolist() == np.repeat(wanted, 3)[:10].tolist()
    assert batches[0]["label"].tolist() == (batches.indices(0) % 3).tolist()


def test_copies_are_transformed_differently_and_again_the_same():
    pipeline = data.Pipeline(data.Repeated(numbered(12), 3), 6, transform=draw, threads=1)
    values = [np.round(255 * pipeline[t]["image"][:, 0, 0, 0]).astype(int).tolist() for t in range(4)]
    assert all(len(set(v)) == 6 for v in values[:2]) and len({tuple(v) for v in values}) == 4
    np.testing.assert_array_equal(pipeline[2]["image"], data.Pipeline(data.Repeated(numbered(12), 3), 6, transform=draw)[2]["image"])


def test_it_is_another_source():
    source = data.Repeated(numbered(4), 2)
    assert source.fingerprint != numbered(4).fingerprint and source.labels.tolist() == [0, 1, 2, 0]
    with pytest.raises(ValueError, match="times=0: expected an integer >= 1"):
        data.Repeated(numbered(4), 0)
    with pytest.raises(TypeError, match="source=.*: expected a data.Source"):
        data.Repeated([1, 2], 2)
