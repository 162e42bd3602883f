"""Generated trees come back equal; mutated files read as something sane or raise ValueError, within memory of a small multiple of their size."""
import io
import pathlib
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.helpers.torch_files import FORMATS, TYPES, Call, Tensor, legacy_file, numpy_scalar, write, zip_file
from vmamba_jax.checkpoints.torch_files.read import read_torch

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
DTYPES = [np.dtype(getattr(ml_dtypes, name, name)) for name in TYPES]
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
SLOW = settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=CHECKS)
FAST = settings(SLOW, max_examples=1000)


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    return np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)


@st.composite
def views(draw):
    """A strided view inside a storage, as (what to write, what to read)."""
    base = np.arange(40).astype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4))
    stride = tuple(draw(st.integers(0, 4)) for _ in shape)
    reach = sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    offset = draw(st.integers(0, 39 - reach))
    index = np.full(shape, offset) + sum(np.indices(shape)[i] * s for i, s in enumerate(stride))
    return Tensor(base, shape, stride, offset), base[index]


keys = st.text(max_size=6) | st.integers(-2**62, 2**62)
leaves = st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False) | st.text(max_size=8) | st.binary(max_size=8) | arrays()
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
                     | st.lists(inner, max_size=3).map(tuple), max_leaves=12)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        [same(a[key], b[key]) for key in a]
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        [same(x, y) for x, y in zip(a, b, strict=True)]
    else:
        assert a == b


@SLOW
@given(tree=trees, kind=st.sampled_from(FORMATS))
@pytest.mark.slow
def test_trees_round_trip(tmp_path, tree, kind):
    same(read_torch(write(tmp_path / "x.pth", tree, kind)), tree)


@SLOW
@given(pairs=st.lists(views(), min_size=1, max_size=4), kind=st.sampled_from(FORMATS))
def test_views_round_trip(tmp_path, pairs, kind):
    read = read_torch(write(tmp_path / "x.pth", [tensor for tensor, _ in pairs], kind))
    for array, (_, expected) in zip(read, pairs, strict=True):
        assert array.dtype == expected.dtype and array.tobytes() == expected.tobytes()


BIG = [-1, 0, 1, 7, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1]


def sample():
    """Small files of every format, as bytes."""
    base = np.arange(12, dtype=np.float32)
    tree = {"a": Tensor(base, (3, 4), (4, 1)), "b": Tensor(base, (4, 3), (1, 4)), "c": np.arange(3, dtype=np.int64), "args": Call("argparse Namespace", (), {"x": 1}),
            "n": numpy_scalar(np.float64(2)), "s": {1, 2}, "deep": [{"t": (True, None, 1.5, b"\xff")}], "d": Call("collections OrderedDict", (), {"m": 1})}
    weights = safetensors.numpy.save({"a": base, "b": base.astype(ml_dtypes.bfloat16).reshape(3, 4)})
    return [unchecked(zip_file(tree)), legacy_file(tree), weights, *((GOLDEN / f"torch_{kind}.pth").read_bytes() for kind in FORMATS)]


def unchecked(data):
    """A zip file whose checksums are 0, which means none: so that mutations get past them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            data = data.replace(struct.pack("<I", info.CRC), bytes(4))
    return data


FILES = sample()


@st.composite
def mutated(draw):
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "byte", "number", "cut", "drop", "splice", "double"])):
            case "flip":
                data[at:at + 1] = bytes([(data[at] if data else 0) ^ 1 << draw(st.integers(0, 7))])
            case "byte":
                data[at:at + 1] = bytes([draw(st.integers(0, 255))])
            case "number":
                size = draw(st.sampled_from([1, 2, 4, 8]))
                data[at:at + size] = (draw(st.sampled_from(BIG)) % 256**size).to_bytes(size, "little")
            case "cut":
                del data[at:]
            case "drop":
                del data[at:at + draw(st.integers(1, 40))]
            case "splice":
                other = draw(st.sampled_from(FILES))
                start = draw(st.integers(0, len(other) - 1))
                data[at:at] = other[start:start + draw(st.integers(1, 200))]
            case "double":
                data[at:at] = data[at:at + draw(st.integers(1, 200))]
    return bytes(data)


def touch(tree):
    """Reads every element of every array, and checks that all else is plain."""
    if isinstance(tree, np.ndarray):
        assert len(tree.tobytes()) == tree.nbytes
        return tree.nbytes
    if isinstance(tree, dict):
        return sum(map(touch, tree.values()))
    if isinstance(tree, (list, tuple, set, frozenset)):
        return sum(map(touch, tree))
    assert tree is None or type(tree) in (bool, int, float, complex, str, bytes)
    return 0


@FAST
@given(data=mutated())
def test_mutated_files(tmp_path, data):
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        tree = read_torch(path)
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith(f"{path}: ")
        tree = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2e6 + 250 * len(data)
    touch(tree)
