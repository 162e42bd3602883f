"""The pickle of a PyTorch checkpoint: tensors, NumPy values and plain configuration, and nothing else.

`torch.save` pickles a tensor as a call of `torch._utils._rebuild_tensor_v2` on a storage, which is a persistent id: (its type, its key
in the file, its number of elements). `allowed` lists every global such a file may name; `Storages` holds the storages' bytes, which the
two file formats fill. Every number of the file is checked before an array is made, and no storage is larger than the file can fill.
"""
import dataclasses
import functools
import math
import sys

import ml_dtypes
import numpy as np

from vmamba_jax.core import restricted_pickle
from vmamba_jax.core.pickled_arrays import MAX_DIMENSIONS, array_globals, natural, scalar_globals
from vmamba_jax.core.pickled_values import AllowedGlobal, describe, ignore_state, key, unique

DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in (
    "float64", "float32", "float16", "bfloat16", "complex128", "complex64", "int64", "int32", "int16", "int8", "uint64", "uint32",
    "uint16", "uint8", "bool", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")}
STORAGES = {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "ComplexDouble": "complex128",
            "ComplexFloat": "complex64", "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
# Dictionaries with attribute access, in which the trainers of published weights store their configuration.
CONFIGS = ("yacs.config.CfgNode", "fvcore.common.config.CfgNode", "easydict.EasyDict", "addict.addict.Dict",
           "mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict")
# Objects of OpenMMLab's training records (`meta`, `message_hub`) in files of MMSegmentation and MMDetection: read as their names, never made.
SKIPPED = ("mmengine.logging.history_buffer.HistoryBuffer", "mmengine.logging.message_hub.MessageHub")


@dataclasses.dataclass(frozen=True)
class Storage:
    """One storage.

    Attributes:
        dtype: of the tensors that view it; None: untyped, each tensor has its own.
        data: its bytes, uint8.
    """
    dtype: np.dtype | None
    data: np.ndarray


class Storages:
    """The storages of a file by key: each is made once, and together they are never larger than the file.

    Args:
        size: bytes of the file.
        byteorder: of the file's numbers, "little" or "big".
        read: function (key, uint8 array to fill), called when a storage is made; None: the file format calls `fill` later.
    """

    def __init__(self, size, byteorder="little", read=None):
        self.size, self.read, self.swap = size, read, byteorder != sys.byteorder
        self.made, self.used = {}, 0

    def __call__(self, key, dtype, count):
        size = count * (dtype or DTYPES["uint8"]).itemsize
        if key not in self.made:
            self.used += size
            if self.used > self.size:
                raise ValueError(f"storage {key!a} declares {size} bytes, more than the file holds")
            self.made[key] = Storage(dtype, np.empty(size, np.uint8))
            if self.read is not None:
                self.fill(key, self.read)
        found = self.made[key]
        if found.dtype != dtype or found.data.size != size:
            raise ValueError(f"storage {key!a} is declared twice, differently")
        return found

    def fill(self, key, read):
        """Fill a storage with the file's bytes by `read(key, array)` and convert them to this machine's byte order."""
        storage = self.made[key]
        read(key, storage.data)
        if self.swap and storage.dtype is None:
            raise ValueError("refused: an untyped storage in a file of the other byte order")
        if self.swap:
            unit = storage.dtype.itemsize // (2 if storage.dtype.kind == "c" else 1)
            storage.data.view(f"u{unit}").byteswap(inplace=True)
        if storage.dtype == np.bool_ and storage.data.max(initial=0) > 1:
            raise ValueError(f"storage {key!a} of booleans holds other bytes than 0 and 1")


def load(stream, storages):
    """The tree of the pickle at `stream` (`restricted_pickle.load`); its tensors become NumPy arrays that view the arrays of `storages`."""
    def persistent(pid):
        """("storage", type, key, device, number of elements[, None or (key, first element, number of elements) of a view])."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            kind = pid[0] if type(pid) is tuple and pid else pid
            raise ValueError(f"refused: persistent id {describe(kind)}; expected a storage")
        _, kind, key, _, count, *view = pid
        if not isinstance(kind, AllowedGlobal) or not isinstance(kind.call, StorageType):
            raise ValueError(f"refused: {describe(kind)} as the type of a storage")
        if type(key) is not str:
            raise ValueError(f"a storage has the key {describe(key)}; expected a string")
        storage = storages(key, kind.call.dtype, natural(count, "a storage's number of elements"))
        if view and view[0] is not None:
            if type(view[0]) is not tuple or len(view[0]) != 3 or storage.dtype is None:
                raise ValueError(f"a storage's view is {describe(view[0])}; expected a key, an offset and a size")
            first, n = (natural(value, "a storage view's bound") * storage.dtype.itemsize for value in view[0][1:])
            if first + n > storage.data.size:
                raise ValueError(f"a view of storage {key!a} reaches beyond its end")
            storage = Storage(storage.dtype, storage.data[first:first + n])
        return storage

    return restricted_pickle.load(stream, allowed(storages.size), persistent, storages.size)


def tensor(storage, offset, size, stride, dtype, limit):
    """A view of a storage as an array, after checking that all of it is inside and that a copy of it takes at most `limit` bytes.

    Args:
        storage: the `Storage`. offset, size, stride: of the view, in elements.
        dtype: of the view if the storage is untyped. limit: bytes.
    """
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor is made from {describe(storage)}; expected a storage")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
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
    """A storage class in the allow-list; a pickle may name it but not call it."""
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


def check_metadata(metadata):
    """Raise if a tensor has a conjugate or negative bit, which change the meaning of its storage."""
    if metadata:
        raise ValueError("refused: a tensor with a conjugate or negative bit")


def torch_globals(limit):
    """Entries of the allow-list for torch's own globals; each tensor is bounded by `limit` bytes."""
    def rebuild_tensor(storage, offset, size, stride):
        return tensor(storage, offset, size, stride, None, limit)

    def rebuild_v2(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
        check_metadata(metadata)
        return tensor(storage, offset, size, stride, None, limit)

    def rebuild_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
        check_metadata(metadata)
        return tensor(storage, offset, size, stride, torch_dtype(dtype), limit)

    def rebuild_parameter(data, requires_grad=True, hooks=None, state=None):
        if type(data) is not np.ndarray:
            raise ValueError(f"a parameter is made from {describe(data)}; expected a tensor")
        return data

    def rebuild_from_type(function, kind, args, state):
        if function not in rebuilds or not isinstance(kind, AllowedGlobal) or kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            raise ValueError(f"refused: a tensor of type {describe(kind)} made by {describe(function)}")
        return function.call(*args)

    rebuilds = [AllowedGlobal("torch._utils._rebuild_tensor", rebuild_tensor), AllowedGlobal("torch._utils._rebuild_tensor_v2", rebuild_v2),
                AllowedGlobal("torch._utils._rebuild_tensor_v3", rebuild_v3), AllowedGlobal("torch._utils._rebuild_parameter", rebuild_parameter),
                AllowedGlobal("torch._utils._rebuild_parameter_with_state", rebuild_parameter)]
    storage_types = {f"torch.{name}Storage": DTYPES[dtype] for name, dtype in STORAGES.items()}
    untyped = dict.fromkeys(("torch.storage.UntypedStorage", "torch.storage._UntypedStorage", "torch.UntypedStorage"))
    return [*rebuilds, AllowedGlobal("torch._tensor._rebuild_from_type_v2", rebuild_from_type),
            AllowedGlobal("torch.Tensor"), AllowedGlobal("torch.nn.parameter.Parameter"),
            AllowedGlobal("torch.Size", torch_size), AllowedGlobal("torch.device", torch_device),
            *(AllowedGlobal(name, StorageType(dtype)) for name, dtype in (storage_types | untyped).items())]


def plain_dict(items=()):
    if type(items) is dict:
        return dict(items)
    if type(items) not in (list, tuple) or not all(type(item) in (list, tuple) and len(item) == 2 for item in items):
        raise ValueError(f"a dict is made from {describe(items)}; expected pairs")
    return {key(name): value for name, value in items}


def set_attributes(made, state):
    if type(state) is not dict:
        raise ValueError(f"a configuration has the state {describe(state)}; expected a dict")
    made.update(state)


def containers():
    """Entries of the allow-list for containers and configuration, which become plain dicts, sets and strings."""
    for module in ("builtins", "__builtin__"):  # the names in Python 3 and in Python 2, which protocol 2 writes
        yield AllowedGlobal(f"{module}.set", lambda values=(): unique(values))
        yield AllowedGlobal(f"{module}.frozenset", lambda values=(): unique(values, frozenset))
        yield AllowedGlobal(f"{module}.complex", lambda real, imag: complex(float(real), float(imag)))
        yield from (AllowedGlobal(f"{module}.{name}") for name in ("list", "dict", "int", "float", "str", "tuple"))  # defaultdict's factories
    yield AllowedGlobal("collections.OrderedDict", plain_dict, ignore_state)
    yield AllowedGlobal("collections.Counter", plain_dict, ignore_state)
    yield AllowedGlobal("collections.defaultdict", lambda factory=None, items=(): plain_dict(items), ignore_state)
    yield from (AllowedGlobal(name, plain_dict, ignore_state) for name in CONFIGS)
    yield from (AllowedGlobal(name, functools.partial(skipped, name), ignore_state) for name in SKIPPED)
    yield from (AllowedGlobal(name, dict, set_attributes) for name in ("argparse.Namespace", "types.SimpleNamespace"))
    yield from (AllowedGlobal(f"pathlib.{name}", path) for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"))
    yield from (AllowedGlobal(f"pathlib._local.{name}", path) for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"))


def skipped(name, *args):
    """What stands for an object that is not made; its arguments and state are read and dropped."""
    del args
    return f"skipped: {name}"


def path(*parts):
    if not all(type(part) is str for part in parts):
        raise ValueError("a path is made from something other than strings")
    return "/".join(parts).replace("//", "/") if parts else "."


def allowed(limit):
    """The allow-list for a file of `limit` bytes: {"module.name": its replacement}."""
    entries = [*torch_globals(limit), *containers(), *array_globals(), *scalar_globals()]
    return {entry.name: entry for entry in entries} | {f"torch.{name}": f"torch.{name}" for name in DTYPES}
