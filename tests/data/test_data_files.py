"""MNIST and CIFAR-10 readers on tiny files written in the releases' formats, and on damaged ones."""
import gzip
import pickle

import numpy as np
import pytest

from vmamba_jax import data
from vmamba_jax.core.pickled_arrays import read_arrays


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_mnist(root, n=30, pack=gzip.compress, end=".gz", seed=0):
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    for prefix in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (n, 5, 4), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)
        (root / f"{prefix}-images-idx3-ubyte{end}").write_bytes(pack(idx(images)))
        (root / f"{prefix}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels)))
    return images, labels  # of the test set


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("pack, end", [(gzip.compress, ".gz"), (bytes, ""), (bytes, ".gz"), (gzip.compress, "")])
def test_mnist(tmp_path, folder, pack, end):
    images, labels = write_mnist(tmp_path / folder, pack=pack, end=end)
    source = data.load("mnist", "test", tmp_path)
    assert (source.images[..., 0] == images).all() and (source.labels == labels).all() and source.image_shape == (5, 4, 1)


def test_mnist_validation_is_held_out(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setenv("VMAMBA_JAX_DATA", str(tmp_path))
    whole, rest, held = (data.load("mnist", split, validation=v) for split, v in (("train", 0), ("train", 10), ("validation", 10)))
    assert (len(whole), len(rest), len(held)) == (30, 20, 10)
    assert sorted(x.tobytes() for x in whole.images) == sorted(x.tobytes() for x in np.concatenate([rest.images, held.images]))
    assert np.bincount(held.labels).tolist() == [1] * 10
    for v, message in ((0, "validation=0: expected the number"), (30, "validation=30: expected fewer than the 30"), (-1, "validation=-1: expected an integer >= 0")):
        with pytest.raises(ValueError, match=message):
            data.load("mnist", "validation", validation=v)


def test_mnist_missing_file_is_named(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(data.DataNotFoundError, match="lacks train-labels-idx1-ubyte"):
        data.load("mnist", "train", tmp_path)
    assert len(data.load("mnist", "test", tmp_path)) == 30


@pytest.mark.parametrize("damage, message", [
    (lambda raw: gzip.compress(b"\0\0\x0d\3" + raw[4:]), "magic 0x00000803 and 3 sizes, got 0x00000d03"),
    (lambda raw: raw[:9], "expected an IDX header"),
    (lambda raw: b"", "expected an IDX header"),
    (lambda raw: raw[:-1], r"expected 600 bytes for the shape \(30, 5, 4\) in its header, .*got 599"),
    (lambda raw: raw + b"\0", "got more"),
    (lambda raw: gzip.compress(raw)[:-20], "damaged or truncated"),
    (lambda raw: gzip.compress(raw)[:-8] + b"\0" * 8, "damaged or truncated"),
    (lambda raw: b"\x1f\x8b" + raw, "damaged or truncated"),
    (lambda raw: raw[:4] + b"\xff" * 12, "expected .* bytes for the shape"),
    (lambda raw: raw[:7] + b"\x1d" + raw[8:-20], "29 images but .*labels-idx1-ubyte.gz has 30 labels"),
])
def test_mnist_damaged(tmp_path, damage, message):
    images, _ = write_mnist(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(idx(images)))
    with pytest.raises(ValueError, match=message) as caught:
        data.load("mnist", "test", tmp_path)
    assert str(path) in str(caught.value)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, as the released files have them."""

    def save_bytes(self, x):
        self.write(b"T" + len(x).to_bytes(4, "little") + x)
        self.memoize(x)

    dispatch = pickle._Pickler.dispatch | {bytes: save_bytes}


def write_python(path, rows, labels, protocol):
    content = {b"data": rows, b"labels": labels.tolist(), b"batch_label": b"batch", b"filenames": [b"x.png"] * len(labels)}
    with open(path, "wb") as file:
        if protocol == "python 2":
            Python2Pickler(file, protocol=2).dump(content)
        else:
            pickle.dump(content, file, protocol=protocol)
    if protocol == "python 2":
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def write_cifar10(root, n=12, protocol="binary"):
    root.mkdir(parents=True, exist_ok=True)
    rng, sets = np.random.default_rng(0), {}
    for stem in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        rows, labels = rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n).astype(np.uint8)
        sets[stem] = rows, labels
        if protocol == "binary":
            (root / f"{stem}.bin").write_bytes(np.concatenate([labels[:, None], rows], 1).tobytes())
        else:
            write_python(root / stem, rows, labels, protocol)
    return sets


@pytest.mark.parametrize("protocol, folder", [
    ("binary", ""), ("binary", "cifar-10-batches-bin"), ("binary", "cifar10"), ("python 2", "cifar-10-batches-py"), (2, "cifar10"),
    (0, ""), (4, "cifar10/cifar-10-batches-py"), (5, "")])
def test_cifar10(tmp_path, protocol, folder):
    sets = write_cifar10(tmp_path / folder, protocol=protocol)
    test, train = data.load("cifar10", "test", tmp_path, records=12), data.load("cifar10", "train", tmp_path)
    assert len(test) == 12 and len(train) == 60 and train.image_shape == (32, 32, 3) and train.classes[3] == "cat"
    for source, stem, start in ((test, "test_batch", 0), (train, "data_batch_1", 0), (train, "data_batch_4", 36)):
        rows, labels = sets[stem]
        assert (source.labels[start:start + 12] == labels).all()
        for i, y, x, c in ((0, 0, 0, 0), (3, 5, 7, 1), (11, 31, 30, 2)):
            assert source.images[start + i, y, x, c] == rows[i, c * 1024 + y * 32 + x]


def test_cifar10_validation(tmp_path):
    write_cifar10(tmp_path)
    rest, held = (data.load("cifar10", split, tmp_path, validation=15) for split in ("train", "validation"))
    assert (len(rest), len(held)) == (45, 15)
    assert not {x.tobytes() for x in rest.images} & {x.tobytes() for x in held.images}


def test_cifar10_missing_batch_is_named(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(data.DataNotFoundError, match="lacks data_batch_3.bin"):
        data.load("cifar10", "train", tmp_path)


@pytest.mark.parametrize("damage, message", [
    (lambda raw: raw[:-1], "expected 12 images of 3073 bytes, got 36875 bytes"),
    (lambda raw: raw[:-3073], "expected 12 images .*11.00 images"),
    (lambda raw: b"", "got 0 bytes"),
    (lambda raw: b"\x0a" + raw[1:], "expected labels from 0 to 9, got .* to 10"),
])
def test_cifar10_binary_damaged(tmp_path, damage, message):
    write_cifar10(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        data.load("cifar10", "train", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content, message", [
    ([1, 2], "expected a dict"),
    ({b"data": np.zeros((2, 3072), np.uint8)}, "expected b'labels' to be a list of 2 ints"),
    ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "list of 2 ints"),
    ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, "a"]}, "list of 2 ints"),
    ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}, "expected labels from 0 to 9"),
    ({b"data": np.zeros((2, 3000), np.uint8), b"labels": [1, 2]}, r"got shape \(2, 3000\)"),
    ({b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 2]}, "refused: numpy.dtype.*expected uint8"),
    ({b"data": np.zeros(2, object), b"labels": [1, 2]}, "refused: numpy.dtype.*expected uint8"),
    ({b"data": [0] * 10, b"labels": [1]}, "got list"),
    ({b"data": print, b"labels": [1]}, "refused: (builtins|__builtin__).print"),
    ({b"data": np.float64(3)}, "refused: numpy.*scalar"),
])
def test_cifar10_python_of_wrong_content(tmp_path, content, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=message) as caught:
        data.load("cifar10", "test", tmp_path)
    assert str(tmp_path / "test_batch") in str(caught.value)


class Hostile:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def test_pickles_call_nothing(tmp_path):
    import os
    path, mark = tmp_path / "x", tmp_path / "mark"
    for call in ((os.mkdir, (str(mark),)), (eval, (f"open({str(mark)!r}, 'w')",)), (np.ndarray, ((10**12,),)), (np.dtype, ("O",))):
        path.write_bytes(pickle.dumps([Hostile(*call)]))
        with pytest.raises(ValueError, match=str(path)):
            read_arrays(path)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", "CF")
def test_pickled_arrays(tmp_path, protocol, order):
    x = np.asarray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), order=order)
    (tmp_path / "x").write_bytes(pickle.dumps({"x": x, "again": [x, b"\xff", 2.5, (None, True)]}, protocol))
    read = read_arrays(tmp_path / "x")
    assert np.array_equal(read["x"], x) and np.array_equal(read["again"][0], x) and read["again"][1:] == [b"\xff", 2.5, (None, True)]


def test_shared_lists_do_not_unfold(tmp_path):
    """A few hundred bytes that would unfold to 2**40 lists."""
    code = b"\x80\x02]q\x00" + b"".join(b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(40)) + b"."
    (tmp_path / "test_batch").write_bytes(code)
    with pytest.raises(ValueError, match="test_batch: .*shared containers unfold"):
        data.load("cifar10", "test", tmp_path)


def test_pickled_shape_exceeds_bytes(tmp_path):
    path = tmp_path / "x"
    raw = pickle.dumps(np.arange(7, dtype=np.uint8), protocol=2)
    assert raw.count(b"K\x07\x85") == 1  # the shape, (7,)
    path.write_bytes(raw)
    assert read_arrays(path).tolist() == list(range(7))
    path.write_bytes(raw.replace(b"K\x07\x85", b"J\xff\xff\xff\x7f\x85"))
    with pytest.raises(ValueError, match=r"shape \(2147483647,\) and type uint8 comes with 7 bytes"):
        read_arrays(path)
    path.write_bytes(raw.replace(b"K\x07\x85", b"K\x06\x85"))
    with pytest.raises(ValueError, match=r"shape \(6,\) and type uint8 comes with 7 bytes"):
        read_arrays(path)


def test_truncated_pickles(tmp_path):
    write_python(tmp_path / "whole", np.zeros((1, 8), np.uint8), np.array([3]), 2)
    raw, path = (tmp_path / "whole").read_bytes(), tmp_path / "cut"
    for n in range(len(raw)):
        path.write_bytes(raw[:n])
        with pytest.raises(ValueError, match="expected a pickle"):
            read_arrays(path)
