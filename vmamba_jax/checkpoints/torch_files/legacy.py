"""Reads the format of `torch.save` before 1.6: five pickles (magic number, protocol, system, object, storage keys), then each storage's bytes."""
import struct

import numpy as np

from vmamba_jax.checkpoints.torch_files import tensors
from vmamba_jax.core import restricted_pickle
from vmamba_jax.core.pickled_values import describe

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read(file, size):
    """The object tree in a file.

    Args:
        file: binary and seekable, at its start. size: its length in bytes.

    Raises:
        ValueError: a damaged file, or one that is refused.
    """
    stream = BoundedReader(file, size)
    magic = restricted_pickle.load(stream, tensors.allowed(size), size=size)
    if type(magic) is not int or magic != MAGIC:
        raise ValueError("a plain pickle, not a file of torch.save")
    protocol, system = restricted_pickle.load(stream, {}), restricted_pickle.load(stream, {})
    if protocol != PROTOCOL or type(system) is not dict:
        raise ValueError(f"torch.save's protocol is {describe(protocol)}; expected {PROTOCOL:#x}")
    if not system.get("little_endian", True):
        raise ValueError("refused: a legacy file of a big-endian machine; save it again with a newer torch")
    storages = tensors.Storages(size)
    tree = tensors.load(stream, storages)
    keys = restricted_pickle.load(stream, {}, size=size)
    if type(keys) is not list or len(set(map(str, keys))) != len(keys) or set(keys) != set(storages.made):
        raise ValueError("the storages in the file are not the ones its tensors use")

    def record(key, into):  # the number of elements, then the bytes
        head = stream.read(8)
        count, = struct.unpack("<q", head) if len(head) == 8 else (0,)
        if count * (storages.made[key].dtype or np.dtype("u1")).itemsize != into.size or file.readinto(into) != into.size:
            raise ValueError(f"storage {key!a} is truncated or has another size than its tensors declare")

    for key in keys:
        storages.fill(key, record)
    return tree


class BoundedReader:
    """The file for pickletools: `read(n)` never requests more bytes than the file has left."""

    def __init__(self, file, size):
        self.file, self.size = file, size
        self.tell, self.readline = file.tell, file.readline

    def read(self, n):
        return self.file.read(min(n, self.size - self.file.tell()))
