"""Sources in memory, subsets, the digits, and the errors of `load`."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmamba_jax import data
from vmamba_jax.data import splits

SPLITS = ("train", "validation", "test")


def arrays(n=20, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return data.Arrays(rng.integers(0, 256, (n, 3, 4, 2), dtype=np.uint8), np.arange(n) % classes)


def test_digits_are_the_released_images():
    from sklearn.datasets import load_digits
    released = load_digits()
    sources = [data.load("digits", split) for split in SPLITS]
    assert [len(s) for s in sources] == [1257, 180, 360]
    pieces = np.concatenate([s.images for s in sources]).reshape(1797, -1)
    labels = np.concatenate([s.labels for s in sources])
    expected = np.round(released.data * 255 / 16).astype(np.uint8)
    rows = sorted((*row, label) for row, label in zip(pieces.tolist(), labels.tolist(), strict=True))
    assert rows == sorted((*row, label) for row, label in zip(expected.tolist(), released.target.tolist(), strict=True))
    for s in sources:
        share = np.bincount(s.labels) / np.bincount(released.target) * 1797 / len(s)
        assert np.abs(share - 1).max() < 0.06
        assert s.image_shape == (8, 8, 1) and s.images.max() == 255 and s.classes == tuple("0123456789")


def test_digits_splits_never_change():
    assert [data.load("digits", split).fingerprint[:16] for split in SPLITS] == ["51462ff2350b6c98", "eda035b6043017b0", "ca5a53e1507130f6"]


def test_arrays_index_and_gather():
    source = arrays()
    image, label = source[-1]
    assert (image == source.images[19]).all() and label == 3 and type(label) is int
    images, labels = source.gather([5, 5, 0])
    assert (images == source.images[[5, 5, 0]]).all() and labels.tolist() == [1, 1, 0] and labels.dtype == np.int32
    assert len(list(source)) == 20
    assert "20 images of 3x4x2, 4 classes" in repr(source)


def test_arrays_are_read_only():
    images = np.zeros((2, 3, 3, 1), np.uint8)
    source = data.Arrays(images, [0, 1])
    with pytest.raises(ValueError, match="read-only"):
        source.images[0] = 1
    images[0] = 1


@pytest.mark.parametrize("index, error", [(20, IndexError), (-21, IndexError), (1.0, TypeError), (slice(3), TypeError), (True, TypeError)])
def test_bad_index(index, error):
    with pytest.raises(error, match="index"):
        arrays()[index]


@pytest.mark.parametrize("images, labels, classes, message", [
    (np.zeros((2, 3, 3), np.uint8), [0, 1], None, r"images of shape \(2, 3, 3\) and uint8: expected \(n, H, W, C\) uint8"),
    (np.zeros((2, 3, 3, 1), np.float32), [0, 1], None, "float32"),
    (np.zeros((2, 3, 3, 1), np.uint8), [0, 1, 2], None, r"labels of shape \(3,\) and int64: expected \(2,\) integers"),
    (np.zeros((2, 3, 3, 1), np.uint8), [0., 1.], None, "float64"),
    (np.zeros((2, 3, 3, 1), np.uint8), [0, 2], ("a", "b"), r"labels from 0 to 2: expected values in \[0, 2\)"),
    (np.zeros((2, 3, 3, 1), np.uint8), [0, -1], None, r"labels from -1 to 0: expected"),
])
def test_bad_arrays(images, labels, classes, message):
    with pytest.raises(ValueError, match=message):
        data.Arrays(images, labels, classes)


def test_fingerprint_of_arrays():
    source = arrays()
    images, labels = source.images.copy(), source.labels.copy()
    assert data.Arrays(images, labels).fingerprint == source.fingerprint
    images[3, 0, 0, 0] ^= 1
    other = data.Arrays(images, labels).fingerprint
    labels[3] = (labels[3] + 1) % 4
    third = data.Arrays(source.images, labels).fingerprint
    fourth = data.Arrays(source.images.reshape(20, 4, 3, 2), source.labels).fingerprint
    assert len({source.fingerprint, other, third, fourth}) == 4


@pytest.mark.parametrize("lazy", [False, True])
def test_subset(lazy):
    source = arrays()
    parent = data.Subset(source, np.arange(20)) if lazy else source
    part = data.subset(parent, [7, -1, 2])
    assert isinstance(part, data.Arrays) != lazy
    assert len(part) == 3 and part.labels.tolist() == [3, 3, 2] and part.classes == source.classes
    assert (part[1][0] == source.images[19]).all()
    drawn = data.subset(parent, 8, seed=3)
    assert data.subset(parent, 8, seed=3).fingerprint == drawn.fingerprint != data.subset(parent, 8, seed=4).fingerprint
    assert len(np.unique([image.tobytes() for image, _ in drawn])) == 8
    assert [label for _, label in data.subset(parent, 3, seed=None)] == [0, 1, 2]
    assert np.bincount(data.subset(parent, 8, stratified=True).labels).tolist() == [2, 2, 2, 2]
    assert "[8 of 20]" in repr(drawn)


@pytest.mark.parametrize("which, options, error, message", [
    (21, {}, ValueError, "which=21: expected at most the 20"), (-1, {}, ValueError, "which=-1: expected an integer >= 0"), ([20], {}, IndexError, "20"), (2.0, {}, TypeError, "which"),
    ([0.5], {}, TypeError, "indices"), ([1], {"stratified": True}, ValueError, "positions"), (2, {"seed": -1}, ValueError, "seed"),
    (2, {"seed": None, "stratified": True}, ValueError, "seed"),
])
def test_bad_subset(which, options, error, message):
    with pytest.raises(error, match=message):
        data.subset(arrays(), which, **options)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_stratified_parts(labels, share, seed):
    labels = np.array(labels)
    first = round(share * len(labels))
    parts = splits.stratified(labels, (first, len(labels) - first), seed)
    assert [len(p) for p in parts] == [first, len(labels) - first]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for c in np.unique(labels):
        assert abs((labels[parts[0]] == c).sum() - (labels == c).sum() * first / len(labels)) <= 2


def test_permutation_is_fixed():
    assert splits.permutation(8, 0, 1).tolist() == [7, 6, 2, 3, 1, 0, 4, 5]
    assert len({tuple(splits.permutation(8, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("call, error, message", [
    (lambda: data.load("imagenot", "train"), ValueError, "dataset='imagenot': expected one of 'digits', .*'tfds:<name>'"),
    (lambda: data.load(3, "train"), TypeError, "name=3: expected a str"),
    (lambda: data.load("digits", "val"), ValueError, "split='val': expected one of"),
    (lambda: data.load("digits", "train", size=3), TypeError, "size=3: expected an option of dataset 'digits', which has none"),
    (lambda: data.load("mnist", "train", split_seed=3), TypeError, r"split_seed=3: expected an option of dataset 'mnist', one of 'validation'$"),
    (lambda: data.subset([1, 2], 1), TypeError, "data.Source"),
])
def test_bad_load(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name, wanted", [
    ("mnist", "train-images-idx3-ubyte"), ("cifar10", "data_batch_1.bin"), ("folder", "<class>"), ("tar", "train.tar"),
    ("imagenet", "ILSVRC2012_img_train.tar"), ("tiny_imagenet", "wnids.txt"), ("npz", "image (n, H, W, C)"),
])
def test_absent_data(name, wanted, tmp_path, monkeypatch):
    monkeypatch.delenv("VMAMBA_JAX_DATA", raising=False)
    for root, place in ((None, "VMAMBA_JAX_DATA"), (tmp_path, str(tmp_path)), (tmp_path / "no", "expected a folder")):
        with pytest.raises(data.DataNotFoundError) as caught:
            data.load(name, "train", root)
        assert wanted in str(caught.value) and place in str(caught.value) and isinstance(caught.value, FileNotFoundError)
