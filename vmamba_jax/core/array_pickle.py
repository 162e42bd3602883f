"""Reading a pickle of containers, strings, numbers and uint8 NumPy arrays without letting it call anything.

Every global that a pickled array names is replaced by an inert stand-in that only remembers its arguments; any other global is
refused by name. The arrays are made here, after their size has been checked against the bytes that are really there.
"""
import math
import pickle

import numpy as np


def read_pickle(path):
    """The object in a pickle file; ValueError naming the file if it is damaged or holds anything but plain data and uint8 arrays."""
    try:
        with open(path, "rb") as file:
            return _plain(_Reader(file, encoding="bytes").load())
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: expected a pickle of plain data and uint8 arrays, but {error or type(error).__name__}") from error


class _Inert:
    """Keeps what a pickle's BUILD gives it. All stand-ins are classes that define this, so BUILD can set no attribute of theirs."""

    def __setstate__(self, state):
        self.state = state


class _Dtype(_Inert):
    """Stand-in for numpy.dtype(code, align, copy), whose state says only byte order."""

    def __init__(self, code, *_):
        self.code = code.decode() if isinstance(code, bytes) else code


class _Array(_Inert):
    """Stand-in for numpy's `_reconstruct(ndarray, (0,), b"b")`, an empty array that its state then fills."""

    def __init__(self, *_):
        self.state = None

    def value(self):
        _, shape, dtype, fortran, raw = self.state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", "|u1"):
            raise ValueError("it holds an array that is not uint8")
        if not isinstance(raw, (bytes, bytearray)) or not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(raw):
            raise ValueError(f"it holds an array of shape {shape} with {len(raw)} bytes")
        return np.frombuffer(bytes(raw), np.uint8).reshape(shape, order="F" if fortran else "C")


class _Buffer(_Array):
    """Stand-in for numpy's `_frombuffer`, with which protocol 5 spells an array."""

    def __init__(self, buffer, dtype, shape, order):
        self.state = (1, shape, dtype, order == "F", buffer)


class _Latin1(_Inert):
    """Stand-in for _codecs.encode, with which protocols below 3 spell bytes."""

    def __new__(cls, text, encoding):
        if encoding not in ("latin1", b"latin1"):
            raise ValueError(f"it uses the codec {encoding!r}")
        return text.encode("latin1")


class _Ndarray(_Inert):
    """Stand-in for numpy.ndarray, which is only ever an argument of `_reconstruct`."""


_GLOBALS = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Ndarray,
    ("_codecs", "encode"): _Latin1,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _Buffer for core in ("numpy.core", "numpy._core")},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _GLOBALS:
            raise ValueError(f"it asks for {module}.{name}")
        return _GLOBALS[module, name]

    def persistent_load(self, pid):
        raise ValueError(f"it asks for the persistent object {pid!r}")


def _plain(x):
    """x with stand-ins turned into arrays; ValueError for anything else that is not plain data."""
    if isinstance(x, _Array):
        return x.value()
    if isinstance(x, dict):
        return {_plain(k): _plain(v) for k, v in x.items()}
    if type(x) in (list, tuple):
        return type(x)(map(_plain, x))
    if x is None or type(x) in (bool, int, float, str, bytes):
        return x
    raise ValueError(f"it holds a {type(x).__name__.lstrip('_')}")
