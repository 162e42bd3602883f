"""Writes files in both formats of `torch.save` without torch, opcode by opcode, so that a test can write malformed files too."""
import dataclasses
import io
import pickle
import struct
import zipfile

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
TYPES = {"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "complex64": "ComplexFloat",
         "complex128": "ComplexDouble", "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool"}
FORMATS = ("zip", "legacy")


@dataclasses.dataclass
class Tensor:
    """A view of a flat array, its storage; sizes and strides in elements, which may be wrong. A plain array needs no Tensor."""
    storage: np.ndarray
    size: tuple
    stride: tuple
    offset: int = 0
    count: int | None = None  # the storage's elements, as declared


@dataclasses.dataclass
class Call:
    """A call of the global `name` ("module name")."""
    name: str
    args: tuple = ()
    state: object = None


@dataclasses.dataclass
class Name:
    name: str


@dataclasses.dataclass
class Raw:
    """Opcodes as they are."""
    code: bytes


def name(text):
    return b"c" + text.replace(" ", "\n").encode() + b"\n"


def text(value):
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


class Writer:
    """Turns a tree into the opcodes of a pickle, and collects the storages of its tensors."""

    def __init__(self, legacy=False):
        self.legacy, self.storages, self.keys = legacy, {}, {}

    def dump(self, tree):
        return b"\x80\x02" + self.emit(tree) + b"."

    def emit(self, x):
        match x:
            case Raw():
                return x.code
            case Name():
                return name(x.name)
            case Call():
                return name(x.name) + self.emit(x.args) + b"R" + (b"" if x.state is None else self.emit(x.state) + b"b")
            case Tensor():
                return name("torch._utils _rebuild_tensor_v2") + b"(" + self.storage(x.storage, x.count) + b"".join(map(self.emit, (
                    x.offset, x.size, x.stride, False, Call("collections OrderedDict")))) + b"tR"
            case np.ndarray():
                steps = tuple(n // x.itemsize for n in np.empty(x.shape, x.dtype).strides)
                return self.emit(Tensor(np.ascontiguousarray(x).reshape(-1), x.shape, steps))
            case str():
                return text(x)
            case dict():
                return b"}(" + b"".join(self.emit(part) for item in x.items() for part in item) + b"u"
            case list():
                return b"](" + b"".join(map(self.emit, x)) + b"e"
            case tuple():
                return b"(" + b"".join(map(self.emit, x)) + b"t" if x else b")"
            case set():
                return self.emit(Call("__builtin__ set", (list(x),)))
            case bytes():
                return self.emit(Call("_codecs encode", (x.decode("latin1"), "latin1")))
            case _:
                return pickle.dumps(x, 2)[2:-1]  # numbers, booleans, None

    def storage(self, data, count=None):
        key = self.keys.setdefault(id(data), str(len(self.keys)))
        self.storages[key] = data
        kind = Name(f"torch {TYPES[data.dtype.name]}Storage")
        pid = ("storage", kind, key, "cpu", data.size if count is None else count) + ((None,) if self.legacy else ())
        return self.emit(pid) + b"Q"


def zip_file(tree, byteorder=b"little", compression=zipfile.ZIP_STORED, prefix="archive", extra=(), without=()):
    writer, out = Writer(), io.BytesIO()
    members = {"data.pkl": writer.dump(tree), "byteorder": byteorder, "version": b"3\n"}
    members |= {f"data/{key}": x.tobytes() for key, x in writer.storages.items()} | dict(extra)
    with zipfile.ZipFile(out, "w", compression) as archive:
        for member, data in members.items():
            if member not in without:
                archive.writestr(f"{prefix}/{member}", data)
    return out.getvalue()


def legacy_file(tree, magic=MAGIC, protocol=PROTOCOL, little=True, counts=None):
    writer = Writer(legacy=True)
    pickles = [magic, protocol, {"protocol_version": protocol, "little_endian": little, "type_sizes": {"int": 4}}, tree]
    out = b"".join(map(writer.dump, pickles)) + writer.dump(list(writer.storages))
    for key, x in writer.storages.items():
        out += struct.pack("<q", (counts or {}).get(key, x.size)) + x.tobytes()
    return out


def write(path, tree, kind, **options):
    """Writes a file of the format `kind` and returns its path."""
    path.write_bytes({"zip": zip_file, "legacy": legacy_file}[kind](tree, **options))
    return path


def numpy_scalar(value):
    """A numpy number, as pickled."""
    value = np.asarray(value)[()]
    order = "<" if value.dtype.itemsize > 1 else "|"
    dtype = Call("numpy dtype", (value.dtype.str[1:], False, True), (3, order, None, None, None, -1, -1, 0))
    return Call("numpy.core.multiarray scalar", (dtype, value.tobytes()))
