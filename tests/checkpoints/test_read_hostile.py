"""Crafted files: nothing is called, nothing outside a storage is read, nothing beyond the file's size is allocated; each is refused by name."""
import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.helpers.torch_files import FORMATS, Call, Name, Raw, Tensor, legacy_file, name, text, write, zip_file
from vmamba_jax.checkpoints.torch_files.read import read_torch
from vmamba_jax.core import limits, restricted_pickle

X = np.arange(6, dtype=np.float32)


def refuse(path, message):
    """Asserts the refusal, and that it took little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            read_torch(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path)) and type(caught.value) is ValueError
    assert peak < 4e6 + 250 * path.stat().st_size, peak


class System:
    def __reduce__(self):
        return os.system, ("touch ran",)


CODE = {  # name -> opcodes
    "posix.system": pickle.dumps(System(), 2)[2:-1],
    "builtins.eval": name("builtins eval") + text("1") + b"\x85R",
    "builtins.getattr": name("builtins getattr") + name("builtins str") + text("mro") + b"\x86R",
    "os.system.__call__": b"\x8c\x02os\x8c\x0fsystem.__call__\x93",  # STACK_GLOBAL
    "opcode INST of 'os system'": b"(X\x02\x00\x00\x00lsios\nsystem\n",
    "opcode OBJ": b"(" + name("collections OrderedDict") + b"o",
    "subprocess.Popen": name("subprocess Popen") + b")\x81",  # NEWOBJ
    "opcode NEWOBJ_EX": name("collections OrderedDict") + b")}\x92",
    "opcode EXT1": b"\x82\x01",
    "opcode PERSID": b"Pos.system\n",
    "opcode STRING": b"S'\\X'\n",
    "opcode NEXT_BUFFER": b"\x97",
    "setting the state of list": b"]}b",
    "setting the state of dict": b"}}b",
    "a call of builtins.list": name("builtins list") + b")R",
    "a call of torch.Tensor": name("torch Tensor") + b")R",
    "a call of 'torch.float32'": name("torch float32") + b")R",
    "torch.FloatStorage as a value": name("torch FloatStorage"),
    "a call of a storage type": name("torch FloatStorage") + b")R",
    "torch.QInt8Storage": name("torch QInt8Storage"),
    "torch._utils._rebuild_qtensor": name("torch._utils _rebuild_qtensor"),
    "torch._utils._rebuild_sparse_tensor": name("torch._utils _rebuild_sparse_tensor"),
    "torch.jit._pickle.build_intlist": name("torch.jit._pickle build_intlist"),
    "persistent id 'module'": b"(" + text("module") + name("torch Tensor") + b"tQ",
    "persistent id 0x7": b"K\x07Q",
    "'cuda' as the type of a storage": b"(" + text("storage") + text("cuda") + text("0") + text("cpu") + b"K\x01tQ",
    "key 0x5; expected a string": b"(" + text("storage") + name("torch FloatStorage") + b"K\x05" + text("cpu") + b"K\x01tQ",
    "tuple as a key": b"}()K\x01u",
    "dict as a key": b"}(}K\x01u",
    "0x10000000000000000 as a key": b"}\x8a\x09" + (2**64).to_bytes(9, "little") + b"Ns",
    "encoding 'x' as 'rot13'": name("_codecs encode") + text("x") + text("rot13") + b"\x86R",
    "numpy.dtype\\('O8'\\)": name("numpy dtype") + text("O8") + b"\x85R",
    "refused: numpy's _reconstruct of torch.Tensor": name("numpy.core.multiarray _reconstruct") + name("torch Tensor") + b")K\x01\x87R",
    "empty stack": b"\x87\x87\x87",
    "never stored": b"h\x07",
    "adds items to 'x'": text("x") + b"(K\x01e",
    "bad arguments": name("torch Size") + b"(K\x01K\x02K\x03tR",
    "expected a tuple": name("torch Size") + b"}R",
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", CODE)
def test_code_is_refused_by_name(tmp_path, kind, what):
    refuse(write(tmp_path / "x.pth", {"weight": X, "evil": Raw(CODE[what])}, kind), what)


def test_a_bare_hostile_pickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps(System(), protocol))
        refuse(path, "refused: posix.system")
    assert os.listdir(tmp_path) == ["x.pth"]


def test_text_opcodes_of_a_hostile_pickle(tmp_path):
    path = write(tmp_path / "x.pth", [Raw(b"I7\n"), Raw(b"L8L\n"), Raw(b"F0.5\n"), Raw(b"Vx\n"), Raw(b"I01\n"), Raw(b"(I1\nI2\nd"), Raw(b"(I3\nl")], "zip")
    assert read_torch(path) == [7, 8, 0.5, "x", True, {1: 2}, [3]]
    path.write_bytes(pickle.dumps(System(), 0))
    with pytest.raises(ValueError, match="neither a file of torch.save"):
        read_torch(path)


BOUNDS = {  # tensors that reach out of their storage of six numbers, or claim what a file cannot hold
    "end": ((7,), (1,), 0), "offset": ((1,), (1,), 6), "stride": ((2, 3), (4, 1), 0), "negative size": ((-1,), (1,), 0), "negative stride": ((2,), (-1,), 5),
    "negative offset": ((1,), (1,), -1), "overflow": ((2**62, 4), (4, 1), 0), "wrapping": ((2,), (2**62,), 0), "huge offset": ((1,), (1,), 2**80),
    "lengths": ((2, 3), (1,), 0), "dimensions": ((1,) * 65, (1,) * 65, 0), "list": ([6], (1,), 0), "truth": ((True,), (1,), 0), "float": ((1.0,), (1,), 0),
    "expanded": ((10**12,), (0,), 0), "expanded twice": ((10**6, 10**6, 10**6), (0, 0, 0), 0), "empty but huge": ((0, 2**62, 2**62), (1, 1, 1), 0),
    "empty beyond": ((0,), (1,), 7), "text": ("ab", (1,), 0)}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", BOUNDS)
def test_bounds(tmp_path, kind, case):
    refuse(write(tmp_path / "x.pth", {"x": Tensor(X, *BOUNDS[case])}, kind), "expected|beyond its storage|more elements than the file")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [7, 5, 0, -1, 2**40, 2**62, 2**70, 6.0, None, True])
def test_declared_storages(tmp_path, kind, count):
    tree = {"x": Tensor(X, (0,), (1,), 0), "y": Raw(b"")}
    path = write(tmp_path / "x.pth", tree | {"y": 1}, kind)
    data = path.read_bytes().replace(b"X\x03\x00\x00\x00cpuK\x06", b"X\x03\x00\x00\x00cpu" + pickle.dumps(count, 2)[2:-1])
    refuse(rezip(path, tree, count) if kind == "zip" else write_bytes(path, data), "storage|bytes; expected|data/0")


def write_bytes(path, data):
    path.write_bytes(data)
    return path


def rezip(path, tree, count):
    """The zip file of the tree with another number of elements declared, and right checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.namelist():
            data = old.read(member).replace(b"X\x03\x00\x00\x00cpuK\x06", b"X\x03\x00\x00\x00cpu" + pickle.dumps(count, 2)[2:-1])
            new.writestr(member, data)
    return write_bytes(path, out.getvalue())


def laughs(start, step, end=b"", rounds=60):
    """start, then rounds of: recall the last value often, make a container of it, memoise it."""
    code = start + b"q\x00"
    for i in range(rounds):
        code += step(b"h" + bytes([i])) + b"q" + bytes([i + 1])
    return code + end


BOMBS = {
    "lists": (laughs(b"]", lambda last: b"](" + last * 9 + b"e"), "unfold"),
    "tuples": (laughs(b")", lambda last: last * 3 + b"\x87"), "unfold"),
    "dicts": (laughs(b"}", lambda last: b"}(" + b"".join(b"K" + bytes([n]) + last for n in range(9)) + b"u"), "unfold"),
    "deep lists": (b"]" * 5000 + b"a" * 4999, "nested deeper"),
    "deep tuples": (b")" + b"\x85" * 30_000, "nested deeper"),
    "deep keys": (b"})" + b"\x85" * 30_000 + b"Ns", "tuple as a key"),
    "deep set": (name("builtins set") + b"](" + b")" + b"\x85" * 30_000 + b"e\x85R", "tuple as a key"),
    "deep namespace": (name("argparse Namespace") + b")R})" + b"\x85" * 30_000 + b"Nsb", "tuple as a key"),
    "deep pairs": (name("collections OrderedDict") + b"(](" + b")" + b"\x85" * 30_000 + b"N\x86etR", "tuple as a key"),
    "deep, from the middle": (b")" + b"\x85" * 80 + b"q\x00" + b"\x85" * 50 + b"h\x00\x86", "nested deeper"),
    "list in itself": (b"]q\x00h\x00a", "contains itself"),
    "dict in itself": (b"}q\x00" + text("a") + b"h\x00s", "contains itself"),
    "copies of a list": (b"](" + b"K\x01" * 5000 + b"eq\x00" + (name("builtins set") + b"h\x00\x85R") * 2000, "shared values|more memory"),
    "copies of a text": (text("a" * 50_000) + b"q\x00" + name("_codecs encode") + b"q\x01h\x00\x85R" + b"h\x01h\x00\x85R" * 5000, "shared values"),
    "copies of a path": (text("a" * 50_000) + b"q\x00" + (name("pathlib PosixPath") + b"h\x00h\x00\x86R") * 2000, "shared values"),
    "long string": (b"X\xff\xff\xff\xffabc", "4294967295 bytes"),
    "very long string": (b"\x8d" + struct.pack("<Q", 2**40) + b"abc", "bytes"),
    "very long bytes": (b"\x8e" + struct.pack("<Q", 2**62) + b"abc", "bytes"),
    "beyond long": (b"\x8e" + struct.pack("<Q", 2**64 - 1) + b"abc", "bytes|maxsize"),
    "long integer": (b"\x8b" + struct.pack("<I", 2**31 - 1) + b"abc", "not enough data"),
    "long integer, filled": (b"\x8b" + struct.pack("<I", 100_000) + b"\x7f" * 100_000, "opcode LONG4"),
    "memo far away": (b"Nr\xff\xff\xff\xff" + b"j\xff\xff\xff\x7f", "never stored"),
    "many marks": (b"(" * 30_000, "pickle"),
    "many lists": (b"](" + b"]" * 8000 + b"e", "more memory than the size of the file allows"),
    "many dicts": (b"](" + b"}" * 8000 + b"e", "more memory than the size of the file allows"),
    "many sets of one": (b"](" + b"\x8f(K\x01\x90" * 8000 + b"e", "more memory than the size of the file allows"),
    "many marks and tuples": (b"](" + b"((tt" * 8000 + b"e", "more memory than the size of the file allows"),
    "text lists": (laughs(b"(l", lambda last: b"(" + last * 9 + b"l"), "unfold"),
    "text dict in itself": (b"(dp7\n" + text("a") + b"g7\ns", "contains itself"),
    "text keys": (b"()I1\nd", "tuple as a key"),
    "text key without a value": (b"(I1\nd", "without a value"),
    "text number": (b"I" + b"9" * 5000 + b"\n", "4300 digits"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", BOMBS)
@pytest.mark.often(24)
def test_bombs(tmp_path, monkeypatch, kind, case):
    code, message = BOMBS[case]
    if "more memory" in message:
        monkeypatch.setattr(limits, "SPARE", 1 << 20)  # fewer objects, the same rule
    refuse(write(tmp_path / "x.pth", Raw(code), kind), message)


def test_compressed_members_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(zip_file({"x": np.zeros(10**6)}, compression=zipfile.ZIP_DEFLATED))
    refuse(path, "compressed")


def test_members_that_overlap(tmp_path):
    """Many members that are one region of the file: together more than the file holds."""
    tensors = {str(i): np.zeros(20_000, np.float32) for i in range(3)}
    data = bytearray(zip_file(tensors))
    first = data.index(b"PK\3\4", data.index(b"archive/version"))
    entries = [i for i in range(len(data)) if data[i:i + 4] == b"PK\1\2" and b"archive/data/" in data[i:i + 64]]
    for entry in entries:
        data[entry + 42:entry + 46] = struct.pack("<I", first)
    small = data[:first + 80_100] + data[data.index(b"PK\1\2"):]
    small[-6:-2] = struct.pack("<I", first + 80_100)
    path = write_bytes(tmp_path / "x.pth", bytes(small))
    refuse(path, "more than the file holds")


@pytest.mark.parametrize("field, value", [(42, 2**31), (20, 10**6), (24, 10**6), (24, 2**31)], ids=["offset", "packed", "size", "huge"])
def test_wrong_directory_entries(tmp_path, field, value):
    data = bytearray(zip_file({"x": X}))
    entry = data.rindex(b"PK\1\2", 0, data.rindex(b"archive/data/0"))
    data[entry + field:entry + field + 4] = struct.pack("<I", value)
    refuse(write_bytes(tmp_path / "x.pth", bytes(data)), "where the archive says|corrupt|expected")


def test_archives_of_other_kinds(tmp_path):
    path = tmp_path / "x.pth"
    for options, message in (({"without": ["data.pkl"]}, "0 pickles"), ({"extra": {"constants.pkl": b""}}, "TorchScript"),
                             ({"extra": {"data/0": b"short"}}, "5 bytes; expected 24"), ({"without": ["data/0"]}, "no 'archive/data/0'")):
        path.write_bytes(zip_file({"x": X}, **options))
        refuse(path, message)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/version", b"3")
    refuse(path, "twice")


def test_a_flipped_weight_is_noticed(tmp_path):
    data = bytearray(zip_file({"x": X}))
    data[data.index(X.tobytes())] ^= 1
    refuse(write_bytes(tmp_path / "x.pth", bytes(data)), "checksum")


def test_booleans_are_zero_or_one(tmp_path):
    wrong = np.array([0, 1, 2], np.uint8).view(bool)
    for kind in FORMATS:
        refuse(write(tmp_path / "x.pth", {"x": wrong}, kind), "booleans")


@pytest.mark.parametrize("options, message", [({"magic": 5}, "plain pickle"), ({"protocol": 7}, "protocol is 0x7"), ({"counts": {"0": 7}}, "another size"),
                                              ({"counts": {"0": -1}}, "another size"), ({"counts": {"0": 2**62}}, "another size")])
def test_legacy_headers(tmp_path, options, message):
    refuse(write_bytes(tmp_path / "x.pth", legacy_file({"x": X}, **options)), message)


def test_metadata_bits_and_tensor_types(tmp_path):
    conjugate = Call("torch._utils _rebuild_tensor_v2", (Raw(b"N"), 0, (1,), (1,), False, None, {"conj": True}))
    refuse(write(tmp_path / "x.pth", conjugate, "zip"), "conjugate")
    other = Call("torch._tensor _rebuild_from_type_v2", (Name("torch._utils _rebuild_tensor_v2"), Name("builtins dict"), (), {}))
    refuse(write(tmp_path / "x.pth", other, "zip"), "refused: a tensor of type builtins.dict")


def test_many_empty_sets(tmp_path):
    """Many empty sets are one object; a set that gets items is its own, also where the memo recalls it."""
    path = write(tmp_path / "x.pth", Raw(b"](" + b"\x8f" * (1 << 16) + b"e"), "zip")
    tracemalloc.start()
    tree = read_torch(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(tree) == 1 << 16 and not any(tree) and peak < 4e6  # not 14e6
    for protocol in (2, 4, 5):
        filled, empty = {1, "a"}, set()
        value = [filled, filled, empty, empty, {2}, frozenset([3]), frozenset()]
        assert read_torch(write(path, Raw(pickle.dumps(value, protocol)[2 if protocol == 2 else 11:-1]), "zip")) == value


def test_many_opcodes(tmp_path, monkeypatch):
    monkeypatch.setattr(restricted_pickle, "MAX_OPCODES", 1000)
    refuse(write(tmp_path / "x.pth", Raw(b"](" + b"N" * 2000 + b"e"), "zip"), "more than 1000 opcodes")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_truncation(tmp_path, kind):
    """Every prefix of a file is an error that names the file."""
    path = write(tmp_path / "x.pth", {"x": X, "y": [1, "two"]}, kind)
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match="x.pth: "):
            read_torch(path)
