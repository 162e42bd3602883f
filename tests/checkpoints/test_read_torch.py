"""Files that torch wrote, and files written like them, read as the arrays they hold.

tests/golden/torch_{zip,legacy,module}.pth were written by torch 2.13.0 (`torch.save`, the second with _use_new_zipfile_serialization=False)
from aranges: a checkpoint with a model's state dict, an AdamW state, a yacs configuration and an argparse.Namespace; and a whole nn.Linear.
"""
import pathlib
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.helpers.torch_files import FORMATS, TYPES, Call, Name, Tensor, numpy_scalar, write, zip_file
from vmamba_jax.checkpoints.torch_files.read import read_torch

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in TYPES}


@pytest.mark.parametrize("kind", FORMATS)
def test_checkpoint_of_torch(kind):
    read = read_torch(GOLDEN / f"torch_{kind}.pth")
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {"weight": base, "transposed": base.T, "sliced": base[1:, ::2], "scalar": np.float32(2.5), "empty": np.zeros((0, 3), np.float32),
                "expanded": np.broadcast_to(np.arange(3, dtype=np.float32), (2, 3)), "parameter": np.arange(4, dtype=np.float32)}
    expected |= {name: np.arange(6).reshape(2, 3).astype(DTYPES[name]) for name in
                 ("float64", "float16", "bfloat16", "complex64", "int64", "int32", "int16", "int8", "uint8", "bool")}
    model = read["model"]
    assert list(model) == list(expected)
    for name, array in expected.items():
        assert model[name].dtype == array.dtype, name
        np.testing.assert_array_equal(model[name], array, err_msg=name)
    assert np.shares_memory(model["weight"], model["transposed"]) and np.shares_memory(model["weight"], model["sliced"])
    moments = read["optimizer"]["state"][0]
    np.testing.assert_allclose(moments["exp_avg"], [[0.1, 0.1]], rtol=1e-6)
    assert read["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999) and read["optimizer"]["param_groups"][0]["params"] == [0, 1]
    assert read["epoch"] == 3 and read["max_accuracy"] == 81.5 and type(read["max_accuracy"]) is float
    assert read["config"] == {"MODEL": {"DEPTHS": [2, 2, 9, 2]}} and type(read["config"]) is dict
    assert read["args"] == {"lr": 1e-3, "dims": (32, 64), "device": "cuda:0", "dtype": "torch.float16"} and type(read["args"]) is dict


@pytest.mark.parametrize("kind", FORMATS)
def test_training_records_are_skipped_by_name(tmp_path, kind):
    """A file of MMDetection's trainer: weights, and objects that are read as their names; an object beside them is still refused."""
    history = Call("mmengine.logging.history_buffer HistoryBuffer", (), {"max_length": 100, "_log_history": np.arange(3.0), "_statistics_methods": {}})
    tree = {"meta": {"mmengine_version": "0.10.1", "cfg": "model = dict()"}, "message_hub": {"log_scalars": {"train/loss": history, "train/lr": history}},
            "state_dict": {"w": np.arange(4.0)}}
    read = read_torch(write(tmp_path / "a.pth", tree, kind))
    assert read["message_hub"]["log_scalars"] == dict.fromkeys(("train/loss", "train/lr"), "skipped: mmengine.logging.history_buffer.HistoryBuffer")
    np.testing.assert_array_equal(read["state_dict"]["w"], np.arange(4.0))
    with pytest.raises(ValueError, match="refused: mmengine.runner.Runner"):
        read_torch(write(tmp_path / "b.pth", tree | {"runner": Call("mmengine.runner Runner")}, kind))


def test_a_whole_module_is_refused():
    with pytest.raises(ValueError, match=r"torch_module.pth: refused: torch\.nn\.modules\.linear\.Linear"):
        read_torch(GOLDEN / "torch_module.pth")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_types(tmp_path, kind, dtype):
    x = np.array([[0, 1, 2], [3, 4, 100]]).astype(DTYPES[dtype])
    read = read_torch(write(tmp_path / "x.pth", {"x": x, "scalar": np.array(x[0, 1]), "empty": x[:0]}, kind))
    assert read["x"].dtype == x.dtype and read["scalar"].shape == () and read["empty"].shape == (0, 3)
    assert read["x"].tobytes() == x.tobytes() and read["scalar"] == x[0, 1]


@pytest.mark.parametrize("kind", FORMATS)
def test_layouts(tmp_path, kind):
    base = np.arange(60, dtype=np.float32)
    views = {"whole": ((3, 4, 5), (20, 5, 1), 0), "transposed": ((5, 4, 3), (1, 5, 20), 0), "sliced": ((2, 2, 3), (20, 10, 1), 21),
             "channels_last": ((1, 3, 4, 5), (60, 1, 15, 3), 0), "last": ((), (), 59), "expanded": ((4, 3), (0, 1), 57), "none": ((0, 7), (7, 1), 60),
             "one": ((1, 1), (10**6, 2**62), 3)}
    read = read_torch(write(tmp_path / "x.pth", {name: Tensor(base, *view) for name, view in views.items()}, kind))
    for name, (size, stride, offset) in views.items():
        index = offset + sum(i * s for i, s in zip(np.indices(size, sparse=True), stride, strict=True)) if size else np.array(offset)
        np.testing.assert_array_equal(read[name], base[np.broadcast_to(index, size)] if 0 not in size else np.zeros(size), err_msg=name)
        assert name == "none" or np.shares_memory(read[name], read["whole"])


@pytest.mark.parametrize("kind", FORMATS)
def test_plain_values(tmp_path, kind):
    pairs = ("collections OrderedDict", ([("a", 1)],)), ("collections Counter", ({2: 1},)), ("collections defaultdict", (Name("builtins list"), {"b": 2}))
    tree = {"none": None, "truth": [True, False], "int": [0, 255, 65535, 2**31, -1, 2**63, 2**80], "float": 1e-300, "text": "é\ud800", "bytes": b"a\xff",
            "tuple": ((), (1,), (1, 2, 3, 4)), "set": {1, "a"}, "nested": [{"w": np.ones(2)}], 7: "seven",
            "scalars": [numpy_scalar(np.float64(0.5)), numpy_scalar(np.int64(-3)), numpy_scalar(np.bool_(True)), numpy_scalar(np.float32(0.25))]}
    calls = {"dicts": [Call(*pair) for pair in pairs], "size": Call("torch Size", ((2, 3),)), "device": Call("torch device", ("cuda", 1)),
             "type": Name("torch bfloat16"), "path": Call("pathlib PosixPath", ("/", "a", "b")), "complex": Call("__builtin__ complex", (1.0, 2.0)),
             "state": Call("collections OrderedDict", (), {"_metadata": {}}), "space": Call("types SimpleNamespace", (), {"x": 1})}
    expected = tree | {"scalars": [0.5, -3, True, 0.25], "dicts": [{"a": 1}, {2: 1}, {"b": 2}], "size": (2, 3), "device": "cuda:1",
                       "type": "torch.bfloat16", "path": "/a/b", "complex": 1 + 2j, "state": {}, "space": {"x": 1}}
    read = read_torch(write(tmp_path / "x.pth", tree | calls, kind))
    assert list(read) == list(expected)
    np.testing.assert_array_equal(read.pop("nested")[0]["w"], expected.pop("nested")[0]["w"])
    assert read == expected
    assert [type(x) for x in read["scalars"]] == [float, int, bool, float]


def test_parameters_and_old_tensors(tmp_path):
    x = np.arange(4.0)
    old = Call("torch._utils _rebuild_parameter", (x, True, Call("collections OrderedDict")))
    state = Call("torch._utils _rebuild_parameter_with_state", (x, True, Call("collections OrderedDict"), {"_no_weight_decay": True}))
    read = read_torch(write(tmp_path / "x.pth", [old, state], "zip"))
    for array in read:
        np.testing.assert_array_equal(array, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_byte_order(tmp_path, dtype):
    x = np.arange(3).astype(DTYPES[dtype])
    unit = x.itemsize // (2 if x.dtype.kind == "c" else 1)
    swapped = x.view(f"u{unit}").byteswap().view(x.dtype)
    read = read_torch(write(tmp_path / "x.pth", {"x": swapped}, "zip", byteorder=b"big"))
    assert read["x"].tobytes() == x.tobytes() and read["x"].dtype.isnative


def test_odd_byte_orders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="byte order is b'middle'"):
        read_torch(write(tmp_path / "x.pth", {}, "zip", byteorder=b"middle"))
    with pytest.raises(ValueError, match="big-endian"):
        read_torch(write(tmp_path / "x.pth", {}, "legacy", little=False))


def test_archives_without_checksums(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(zip_file({"x": np.ones(2)}, without=("byteorder",)))
    np.testing.assert_array_equal(read_torch(path)["x"], [1, 1])
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            data = data.replace(struct.pack("<I", info.CRC), bytes(4))
    path.write_bytes(data)
    np.testing.assert_array_equal(read_torch(path)["x"], [1, 1])


def test_legacy_storage_views(tmp_path):
    x = np.arange(6, dtype=np.float32)
    tensor = Tensor(x, (2,), (1,), 1)
    view = write(tmp_path / "x.pth", {"x": tensor}, "legacy").read_bytes()
    patched = view.replace(b"K\x06Nt", b"K\x06(X\x01\x00\x00\x007K\x02K\x03tt")  # None -> (key, first element, elements)
    assert patched != view
    (tmp_path / "x.pth").write_bytes(patched)
    np.testing.assert_array_equal(read_torch(tmp_path / "x.pth")["x"], [3, 4])
    (tmp_path / "x.pth").write_bytes(view.replace(b"K\x06Nt", b"K\x06(X\x01\x00\x00\x007K\x05K\x02tt"))
    with pytest.raises(ValueError, match="beyond its end"):
        read_torch(tmp_path / "x.pth")


def test_safetensors(tmp_path):
    names = set(DTYPES) - {"complex128"}
    tree = {name: np.arange(6).reshape(2, 3).astype(DTYPES[name]) for name in names} | {"empty": np.zeros((0, 2)), "scalar": np.array(1.5)}
    path = tmp_path / "weights.pth"  # the content decides, not the name
    safetensors.numpy.save_file(tree, path, metadata={"a": "b"})
    read = read_torch(path)
    assert set(read) == set(tree)
    for name, array in tree.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)
    safetensors.numpy.save_file({"x": np.ones(2, ml_dtypes.float8_e4m3fn)}, path)
    with pytest.raises(ValueError, match="'x' has the type F8_E4M3"):
        read_torch(path)


@pytest.mark.parametrize("content, message", [
    (b"", "empty"), (b"<!DOCTYPE html>", "web page"), (b"version https://git-lfs.github.com/spec/v1\n", "LFS pointer"), (b"\x1f\x8b\x08", "gzip"),
    (bytes(257) + b"ustar" + bytes(300), "tar format"), (b"hello", "neither a file of torch.save nor safetensors"),
    (b"\x80\x02}.", "plain pickle"), (b"PK\x03\x04", "corrupt or truncated"), (b"\x10" + bytes(7) + b"{", "corrupt or truncated")])
def test_other_files(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.pth: .*{message}"):
        read_torch(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_torch(tmp_path / "none.pth")
