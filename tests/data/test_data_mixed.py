"""A second set mixed in by a share, sets in .npz files, and the meter of the input."""
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmamba_jax import data


def arrays(n, first=0, classes=10):
    """n images that say first, first + 1, ..."""
    images = np.zeros((n, 2, 2, 3), np.uint8)
    images[..., 0] = (first + np.arange(n))[:, None, None]
    return data.Arrays(images, np.arange(n) % classes, range(classes))


@given(real=st.integers(8, 30), extra=st.integers(1, 40), fraction=st.floats(0, 0.85), shards=st.sampled_from([1, 2, 4]),
       seed=st.integers(0, 99), shuffle=st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_batch_has_its_share_and_an_epoch_is_one_of_the_real_set(real, extra, fraction, shards, seed, shuffle):
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


def test_batches_and_pipelines_of_a_mixed_set():
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


def test_a_mixture_must_fit_its_batches():
    source = data.Mixed(arrays(4), arrays(4), 0.8)
    for options, message in (({"batch_size": 2}, "fraction=.* of batch_size=2: expected at least one real"), ({"batch_size": 4, "drop_remainder": False}, "drop_remainder")):
        with pytest.raises(ValueError, match=message):
            data.Batches(source, **options)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    images, labels = arrays(7).images, np.arange(7)
    save(tmp_path / "1m.npz", image=images, label=labels)
    source = data.load("npz", "train", tmp_path, file="1m.npz", classes=range(10))
    assert np.array_equal(source.images, images) and source.labels.tolist() == list(range(7)) and len(source.classes) == 10
    mapped = source.images
    while isinstance(mapped.base, np.ndarray):
        mapped = mapped.base
    assert isinstance(mapped, np.memmap) == (save is np.savez)
    raw = pickle.dumps(source)
    assert len(raw) < 1000 and np.array_equal(pickle.loads(raw).images, images)
    before = source.fingerprint
    save(tmp_path / "1m.npz", image=images[::-1], label=labels)
    assert data.load("npz", "train", tmp_path, file="1m.npz", classes=range(10)).fingerprint != before


def test_bad_npz(tmp_path):
    with pytest.raises(data.DataNotFoundError, match="train.npz: no such file.*image .n, H, W, C. uint8"):
        data.load("npz", "train", tmp_path)
    path = tmp_path / "train.npz"
    for content, message in (({"image": np.zeros(3), "label": np.zeros(3, int)}, "train.npz: images of shape .*: expected"),
                             ({"images": np.zeros(3)}, r"expected an array 'image', got \['images'\]")):
        np.savez(path, **content)
        with pytest.raises(ValueError, match=message):
            data.load("npz", "train", tmp_path)
    for damage in (lambda raw: raw[:300], lambda raw: b"text"):
        np.savez_compressed(path, image=arrays(5).images, label=np.arange(5))
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match="train.npz: expected a whole .npz file"):
            data.load("npz", "train", tmp_path)


def test_meter_tells_the_share_of_waiting():
    now = [0.0]

    def batches():
        for seconds in (1.0, 0.5, 0.5):
            now[0] += seconds
            yield {"label": np.zeros(8)}
    meter = data.Meter(batches(), clock=lambda: now[0])
    assert meter.elapsed == meter.wait_fraction == meter.rate == 0
    next(meter)
    assert meter.wait_fraction == 1 and meter.rate == 8
    now[0] += 3  # the consumer works
    assert meter.wait_fraction == 0.25 and meter.images == 8 and meter.rate == 2
    meter.restart()
    for _ in meter:
        now[0] += 1.5
    assert (meter.waited, meter.elapsed, meter.images, meter.wait_fraction, meter.rate) == (1.0, 4.0, 16, 0.25, 4)


def test_meter_closes_and_input_rate_reads():
    closed = []

    def batches():
        try:
            yield from ({"label": np.zeros(1)} for _ in range(9))
        finally:
            closed.append(True)
    meter = data.Meter(batches())
    next(meter)
    meter.close()
    assert closed == [True]
    assert data.input_rate(data.Batches(arrays(20), 4), steps=5) > 0
