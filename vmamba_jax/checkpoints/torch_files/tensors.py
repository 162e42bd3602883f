"""What a PyTorch checkpoint's pickle may hold: tensors, numpy values and plain configuration, and nothing else.

`torch.save` pickles a tensor as a call of `torch._utils._rebuild_tensor_v2` on a storage, which is a persistent id: (its type, its key
in the file, its number of elements). `allowed` lists every name such a file may use; `Storages` is where the two file formats put the
storages' bytes. All numbers of the file are checked before an array is made, and no storage is made that the file could not fill.
"""
import dataclasses
import math
import re
import sys

import ml_dtypes
import numpy as np

from vmamba_jax.core import restricted_pickle
from vmamba_jax.core.restricted_pickle import Known, describe, ignore, unique

DIMENSIONS = 64  # numpy's limit
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in (
    "float64", "float32", "float16", "bfloat16", "complex128", "complex64", "int64", "int32", "int16", "int8", "uint64", "uint32",
    "uint16", "uint8", "bool", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")}
STORAGES = {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "ComplexDouble": "complex128",
            "ComplexFloat": "complex64", "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
# Dictionaries with attribute access: what the trainers of published weights keep their configuration in.
CONFIGS = ("yacs.config.CfgNode", "fvcore.common.config.CfgNode", "easydict.EasyDict", "addict.addict.Dict",
           "mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict")


@dataclasses.dataclass(frozen=True)
class Storage:
    """`data`: the bytes of one storage (uint8), which tensors view as `dtype` (None: untyped, the tensor says)."""
    dtype: np.dtype | None
    data: np.ndarray


class Storages:
    """The storages of a file of `size` bytes, by key: each made once, in all never larger than the file, and filled by the file's format.

    byteorder: "little" or "big", how the file keeps numbers. read: function (key, uint8 array to fill), called as a storage is made;
    None if the format calls `fill` later.
    """

    def __init__(self, size, byteorder="little", read=None):
        self.size, self.read, self.swap = size, read, byteorder != sys.byteorder
        self.made, self.used = {}, 0

    def __call__(self, key, dtype, count):
        size = count * (dtype or DTYPES["uint8"]).itemsize
        if key not in self.made:
            self.used += size
            if self.used > self.size:
                raise ValueError(f"storage {ascii(key)} declares {size} bytes, more than the file holds")
            self.made[key] = Storage(dtype, np.empty(size, np.uint8))
            if self.read is not None:
                self.fill(key, self.read)
        found = self.made[key]
        if found.dtype != dtype or found.data.size != size:
            raise ValueError(f"storage {ascii(key)} is declared twice, differently")
        return found

    def fill(self, key, read):
        """Lets `read` fill a storage with the file's bytes, and makes them this machine's numbers."""
        storage = self.made[key]
        read(key, storage.data)
        if self.swap and storage.dtype is None:
            raise ValueError("refused: an untyped storage in a file of the other byte order")
        if self.swap:
            unit = storage.dtype.itemsize // (2 if storage.dtype.kind == "c" else 1)
            storage.data.view(f"u{unit}").byteswap(inplace=True)
        if storage.dtype == np.bool_ and storage.data.max(initial=0) > 1:
            raise ValueError(f"storage {ascii(key)} of booleans holds other bytes than 0 and 1")


def load(stream, storages):
    """Runs the pickle at `stream`; its tensors become numpy arrays that view the arrays of `storages` (see pickle_data.load)."""
    def persistent(pid):
        """("storage", type, key, device, number of elements[, None or (key, first element, number of elements) of a view])."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            kind = pid[0] if type(pid) is tuple and pid else pid
            raise ValueError(f"refused: persistent id {describe(kind)}; expected a storage")
        _, kind, key, _, count, *view = pid
        if not isinstance(kind, Known) or not isinstance(kind.make, StorageType):
            raise ValueError(f"refused: {describe(kind)} as the type of a storage")
        if type(key) is not str:
            raise ValueError(f"a storage has the key {describe(key)}; expected a string")
        storage = storages(key, kind.make.dtype, natural(count, "a storage's number of elements"))
        if view and view[0] is not None:
            if type(view[0]) is not tuple or len(view[0]) != 3 or storage.dtype is None:
                raise ValueError(f"a storage's view is {describe(view[0])}; expected a key, an offset and a size")
            first, n = (natural(value, "a storage view's bound") * storage.dtype.itemsize for value in view[0][1:])
            if first + n > storage.data.size:
                raise ValueError(f"a view of storage {ascii(key)} reaches beyond its end")
            storage = Storage(storage.dtype, storage.data[first:first + n])
        return storage

    return restricted_pickle.load(stream, allowed(storages.size), persistent, storages.size)


def natural(value, what):
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} is {describe(value)}; expected an integer of at least 0")
    return value


def tensor(storage, offset, size, stride, dtype, limit):
    """The array of shape `size` at `storage`, after checking that all of it lies inside and that written out it stays within `limit` bytes."""
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor is made from {describe(storage)}; expected a storage")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > DIMENSIONS:
        raise ValueError(f"a tensor has the sizes {describe(size)} and strides {describe(stride)}; expected two tuples of one length")
    dtype = storage.dtype or dtype
    if dtype is None:
        raise ValueError("a tensor without a type is made from an untyped storage")
    size = tuple(natural(n, "a tensor's size") for n in size)
    stride = tuple(natural(n, "a tensor's stride") for n in stride)
    offset, count = natural(offset, "a tensor's offset"), math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset - 1
    if (last + 1) * dtype.itemsize > storage.data.size:
        raise ValueError(f"a tensor of sizes {size}, strides {stride} and offset {offset} reaches beyond its storage of "
                         f"{storage.data.size // dtype.itemsize} elements")
    if math.prod(max(n, 1) for n in size) * dtype.itemsize > limit:
        raise ValueError(f"a tensor of sizes {size} has more elements than the file has bytes for")
    if not count:
        return np.empty(size, dtype)
    steps = tuple(step * dtype.itemsize if n > 1 else 0 for n, step in zip(size, stride, strict=True))
    return np.ndarray(size, dtype, storage.data, offset * dtype.itemsize, steps)


@dataclasses.dataclass(frozen=True)
class StorageType:
    """Stands for a storage class in the allow-list; never called by a pickle."""
    dtype: np.dtype | None

    def __call__(self, *args):
        raise ValueError("refused: a call of a storage type")


def torch_dtype(value):
    dtype = DTYPES.get(value.removeprefix("torch.")) if type(value) is str else None
    if dtype is None:
        raise ValueError(f"a tensor has the type {describe(value)}; expected one of {', '.join(DTYPES)}")
    return dtype


def torch_size(size=()):
    if type(size) not in (tuple, list):
        raise ValueError(f"a torch.Size is made from {describe(size)}; expected a tuple")
    return tuple(size)


def torch_device(kind, index=None):
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise ValueError(f"a torch.device is made from {describe(kind)} and {describe(index)}; expected a string and an integer")
    return kind if index is None else f"{kind}:{index}"


def plain_metadata(metadata):
    """A tensor's conjugate and negative bits, which change what its storage means."""
    if metadata:
        raise ValueError("refused: a tensor with a conjugate or negative bit")


def names_of(limit):
    """Entries for torch's own names; `limit` bytes bound each tensor."""
    def rebuild_tensor(storage, offset, size, stride):
        return tensor(storage, offset, size, stride, None, limit)

    def rebuild_v2(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
        plain_metadata(metadata)
        return tensor(storage, offset, size, stride, None, limit)

    def rebuild_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
        plain_metadata(metadata)
        return tensor(storage, offset, size, stride, torch_dtype(dtype), limit)

    def rebuild_parameter(data, requires_grad=True, hooks=None, state=None):
        if type(data) is not np.ndarray:
            raise ValueError(f"a parameter is made from {describe(data)}; expected a tensor")
        return data

    def rebuild_from_type(function, kind, args, state):
        if function not in rebuilds or not isinstance(kind, Known) or kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            raise ValueError(f"refused: a tensor of type {describe(kind)} made by {describe(function)}")
        return function.make(*args)

    rebuilds = [Known("torch._utils._rebuild_tensor", rebuild_tensor), Known("torch._utils._rebuild_tensor_v2", rebuild_v2),
                Known("torch._utils._rebuild_tensor_v3", rebuild_v3), Known("torch._utils._rebuild_parameter", rebuild_parameter),
                Known("torch._utils._rebuild_parameter_with_state", rebuild_parameter)]
    storage_types = {f"torch.{name}Storage": DTYPES[dtype] for name, dtype in STORAGES.items()}
    untyped = dict.fromkeys(("torch.storage.UntypedStorage", "torch.storage._UntypedStorage", "torch.UntypedStorage"))
    return [*rebuilds, Known("torch._tensor._rebuild_from_type_v2", rebuild_from_type),
            Known("torch.Tensor"), Known("torch.nn.parameter.Parameter"),
            Known("torch.Size", torch_size), Known("torch.device", torch_device),
            *(Known(name, StorageType(dtype)) for name, dtype in (storage_types | untyped).items())]


def plain_dict(items=()):
    if type(items) is dict:
        return dict(items)
    if type(items) not in (list, tuple) or not all(type(item) in (list, tuple) and len(item) == 2 for item in items):
        raise ValueError(f"a dict is made from {describe(items)}; expected pairs")
    return {restricted_pickle.key(name): value for name, value in items}


def set_attributes(made, state):
    if type(state) is not dict:
        raise ValueError(f"a configuration has the state {describe(state)}; expected a dict")
    made.update(state)


def containers():
    """Entries for containers and configuration, all read as plain dicts, sets and strings."""
    for module in ("builtins", "__builtin__"):  # Python 3's name and Python 2's, which protocol 2 writes
        yield Known(f"{module}.set", lambda values=(): unique(values))
        yield Known(f"{module}.frozenset", lambda values=(): unique(values, frozenset))
        yield Known(f"{module}.complex", lambda real, imag: complex(float(real), float(imag)))
        yield from (Known(f"{module}.{name}") for name in ("list", "dict", "int", "float", "str", "tuple"))  # defaultdict's factories
    yield Known("collections.OrderedDict", plain_dict, ignore)
    yield Known("collections.Counter", plain_dict, ignore)
    yield Known("collections.defaultdict", lambda factory=None, items=(): plain_dict(items), ignore)
    yield from (Known(name, plain_dict, ignore) for name in CONFIGS)
    yield from (Known(name, lambda: {}, set_attributes) for name in ("argparse.Namespace", "types.SimpleNamespace"))
    yield from (Known(f"pathlib.{name}", path) for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"))
    yield from (Known(f"pathlib._local.{name}", path) for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"))


def path(*parts):
    if not all(type(part) is str for part in parts):
        raise ValueError("a path is made from something other than strings")
    return "/".join(parts).replace("//", "/") if parts else "."


def latin1(text, encoding="latin1"):
    """`_codecs.encode`, which is how protocol 2 writes bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"refused: encoding {describe(text)} as {describe(encoding)}")
    return text.encode("latin1")


def numpy_dtype(code, align=False, copy=True):
    if type(code) is not str or not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16", code):
        raise ValueError(f"refused: numpy.dtype({describe(code)}); expected a number")
    return np.dtype(code, copy=True)


def numpy_order(dtype, state):
    """A pickled dtype's state: (version, byte order, ...)."""
    if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
        raise ValueError(f"a numpy type has the state {describe(state)}; expected its byte order")
    dtype.__setstate__((3, state[1], None, None, None, -1, -1, 0))


def numpy_scalar(dtype, data):
    if not isinstance(dtype, np.dtype) or type(data) is not bytes or len(data) != dtype.itemsize:
        raise ValueError(f"a numpy scalar is made from {describe(dtype)} and {describe(data)}; expected a type and its bytes")
    return np.frombuffer(data, dtype)[0].item()


def numpy_empty(kind, shape, code):
    """`_reconstruct(ndarray, (0,), b"b")`: an array that numpy_fill then sets."""
    if not isinstance(kind, Known) or kind.name != "numpy.ndarray":
        raise ValueError(f"refused: numpy's _reconstruct of {describe(kind)}")
    return np.empty(0, np.int8)


def numpy_fill(array, state):
    """An array's state: (version, shape, dtype, Fortran order, bytes)."""
    if type(state) is not tuple or len(state) != 5:
        raise ValueError(f"a numpy array has the state {describe(state)}; expected five entries")
    _, shape, dtype, fortran, data = state
    if not isinstance(dtype, np.dtype) or type(data) is not bytes or type(shape) is not tuple or len(shape) > DIMENSIONS:
        raise ValueError("a numpy array's state does not hold its shape, type and bytes")
    shape = tuple(natural(n, "a numpy array's size") for n in shape)
    if math.prod(max(n, 1) for n in shape) >= 2**63 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"a numpy array of sizes {shape} and type {dtype} comes with {len(data)} bytes")
    if dtype.kind == "b" and max(data, default=0) > 1:
        raise ValueError("a numpy array of booleans holds other bytes than 0 and 1")
    array.__setstate__((1, shape, dtype, bool(fortran), data))


def allowed(limit):
    """The allow-list, for a file of `limit` bytes: {"module.name": what stands for it}."""
    known = [*names_of(limit), *containers(), Known("_codecs.encode", latin1), Known("numpy.ndarray"),
             Known("numpy.dtype", numpy_dtype, numpy_order)]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and 2
        known += [Known(f"{module}.scalar", numpy_scalar), Known(f"{module}._reconstruct", numpy_empty, numpy_fill)]
    return {entry.name: entry for entry in known} | {f"torch.{name}": f"torch.{name}" for name in DTYPES}
