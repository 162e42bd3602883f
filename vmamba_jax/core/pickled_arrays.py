"""NumPy values in pickles: the entries of the allow-list of `restricted_pickle` that build them, and a reader of pickled uint8 arrays."""
import io
import math
import pathlib
import re

import numpy as np

from vmamba_jax.core import restricted_pickle
from vmamba_jax.core.pickled_values import AllowedGlobal, describe

MAX_DIMENSIONS = 64  # NumPy's limit
NUMBERS = r"b1|[iu][1248]|f[248]|c8|c16"
CORES = ("numpy.core", "numpy._core")  # NumPy 1 and 2


def read_arrays(path):
    """The tree in a pickle file of containers, strings, numbers and uint8 arrays.

    Args:
        path: the file; any pickle protocol, also of Python 2, whose byte strings become str.

    Raises:
        OSError: a file that cannot be read.
        ValueError: a file that is damaged or holds anything else, named with its path; nothing in it is called.
    """
    content = pathlib.Path(path).read_bytes()
    try:
        return restricted_pickle.load(io.BytesIO(content), {entry.name: entry for entry in array_globals("u1")}, size=len(content))
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: expected a pickle of plain data and uint8 arrays, but {error or type(error).__name__}") from error


def array_globals(types=NUMBERS):
    """Entries of the allow-list for NumPy arrays, `_codecs.encode` included.

    Args:
        types: regular expression of the dtype codes to accept, such as "u1".
    """
    def dtype(code, align=False, copy=True):
        if type(code) is not str or not re.fullmatch(types, code.removeprefix("|")):
            raise ValueError(f"refused: numpy.dtype({describe(code)}); expected {'uint8' if types == 'u1' else 'a number'}")
        return np.dtype(code, copy=True)

    yield AllowedGlobal("_codecs.encode", encode_latin1)
    yield AllowedGlobal("numpy.ndarray")
    yield AllowedGlobal("numpy.dtype", dtype, set_byte_order)
    for core in CORES:
        yield AllowedGlobal(f"{core}.multiarray._reconstruct", empty_array, fill_array)
        yield AllowedGlobal(f"{core}.numeric._frombuffer", array_of_buffer)


def scalar_globals():
    """Entries of the allow-list for NumPy scalars, which become Python numbers."""
    return [AllowedGlobal(f"{core}.multiarray.scalar", python_number) for core in CORES]


def encode_latin1(text, encoding="latin1"):
    """`_codecs.encode`, which is how protocols below 3 write bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"refused: encoding {describe(text)} as {describe(encoding)}")
    return text.encode("latin1")


def set_byte_order(dtype, state):
    """The `set_state` of a dtype: (version, byte order, ...)."""
    if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
        raise ValueError(f"a numpy type has the state {describe(state)}; expected its byte order")
    dtype.__setstate__((3, state[1], None, None, None, -1, -1, 0))


def python_number(dtype, data):
    """A NumPy scalar, from its type and bytes."""
    if not isinstance(dtype, np.dtype) or type(data) is not bytes or len(data) != dtype.itemsize:
        raise ValueError(f"a numpy scalar is made from {describe(dtype)} and {describe(data)}; expected a type and its bytes")
    return np.frombuffer(data, dtype)[0].item()


def empty_array(kind, shape, code):
    """`_reconstruct(ndarray, (0,), b"b")`: an array that `fill_array` sets afterwards."""
    if not isinstance(kind, AllowedGlobal) or kind.name != "numpy.ndarray":
        raise ValueError(f"refused: numpy's _reconstruct of {describe(kind)}")
    return np.empty(0, np.int8)


def fill_array(array, state):
    """The `set_state` of an array: (version, shape, dtype, Fortran order, bytes)."""
    if type(state) is not tuple or len(state) != 5:
        raise ValueError(f"a numpy array has the state {describe(state)}; expected five entries")
    _, shape, dtype, fortran, data = state
    data = check_array(shape, dtype, data)
    array.__setstate__((1, shape, dtype, bool(fortran), data))


def array_of_buffer(buffer, dtype, shape, order):
    """`_frombuffer`, which is how protocol 5 writes an array."""
    data = check_array(shape, dtype, bytes(buffer) if type(buffer) is bytearray else buffer)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def check_array(shape, dtype, data):
    """The bytes of an array, after checking them against its shape and type."""
    if type(data) is str:  # the byte string of a Python 2 pickle
        data = data.encode("latin1")
    if not isinstance(dtype, np.dtype) or type(data) is not bytes or type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
        raise ValueError("a numpy array's state does not hold its shape, type and bytes")
    shape = tuple(natural(n, "a numpy array's size") for n in shape)
    if math.prod(max(n, 1) for n in shape) >= 2**63 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"a numpy array of shape {shape} and type {dtype} comes with {len(data)} bytes")
    if dtype.kind == "b" and max(data, default=0) > 1:
        raise ValueError("a numpy array of booleans holds other bytes than 0 and 1")
    return data


def natural(value, what):
    """`value` if it is an int of at least 0; else a ValueError about `what`."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} is {describe(value)}; expected an integer of at least 0")
    return value
