"""Zip and .npz files of foreign origin, read within a memory budget: no directory, member or array header takes more than the file justifies."""
import math
import os
import struct
import zipfile

import numpy as np

from vmamba_jax.core import limits

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may take gigabytes for their tables
SPARE_DIRECTORY, MOST_DIRECTORY = 2 << 20, 24 << 20  # bytes; an entry of 50 bytes takes 16 times as much memory and 4 microseconds
MOST_HEADER = 10_000  # bytes of an array's header, NumPy's own limit
LOCAL = struct.Struct("<4s22xHH")  # a member's own header: signature, ..., lengths of its name and its extra field
PREFIX = struct.Struct("<6sBB")  # of a .npy file: magic, version


class Guarded:
    """A file for zipfile, which reads the whole directory at once: ValueError for more than `most` bytes; None: no limit."""

    def __init__(self, file, most):
        self.file, self.most = file, most
        self.seek, self.tell, self.close, self.seekable = file.seek, file.tell, file.close, file.seekable

    def read(self, n=-1):
        if self.most is not None and n > self.most:
            raise ValueError(f"its directory has {n} bytes; expected at most {self.most} in a file of this size")
        return self.file.read(n)


def open_zip(file):
    """The zipfile.ZipFile of a binary file; a damaged one raises errors of several kinds."""
    size = os.fstat(file.fileno()).st_size
    guard = Guarded(file, min(SPARE_DIRECTORY + size // 2, MOST_DIRECTORY))
    archive = zipfile.ZipFile(guard)
    guard.most = None
    return archive


def check_member(member, size):
    """Raise a ValueError unless a member of a file of `size` bytes is plain or deflated, and unpacks within the file's budget."""
    if member.compress_type not in METHODS or member.flag_bits & 1:
        raise ValueError(f"member {member.filename[:100]!a} is encrypted or packed by another method than deflate")
    if member.compress_size > size:
        raise ValueError(f"member {member.filename[:100]!a} has {member.compress_size} bytes in a file of {size}")
    if member.file_size > limits.memory(size) // 2:  # the other half is for what becomes of it
        raise ValueError(f"member {member.filename[:100]!a} unpacks to {member.file_size} bytes; expected at most {limits.memory(size) // 2} in a file "
                         f"of {size} bytes")


def read_member(archive, member, size):
    """The content of a member of a file of `size` bytes, after `check_member`."""
    check_member(member, size)
    content = archive.read(member)
    if len(content) != member.file_size:
        raise ValueError(f"member {member.filename[:100]!a} has {len(content)} bytes; expected {member.file_size}")
    return content


def read_npz(path, names):
    """{name: array} of some arrays in an .npz file.

    Raises:
        OSError: a file that cannot be read.
        ValueError: a file that is damaged, lacks a name, or holds anything but arrays of numbers and text; the message begins with the path.
    """
    with open(path, "rb") as file:
        try:
            archive, size = open_zip(file), os.fstat(file.fileno()).st_size
            members = {info.filename: info for info in archive.infolist()}
            if absent := [name for name in names if f"{name}.npy" not in members]:
                raise ValueError(f"it has no array {absent[0]!r}")
            return {name: read_array(archive, members[f"{name}.npy"], size) for name in names}
        except Exception as error:  # a damaged file can raise nearly anything
            raise ValueError(f"{path}: expected a whole .npz file, but {str(error)[:500] or type(error).__name__}") from error


def read_array(archive, member, size):
    """The array in a member of an .npz file of `size` bytes, read into memory."""
    shape, fortran, dtype, start = array_header(archive, member, size)
    content = bytearray(read_member(archive, member, size))
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def array_header(archive, member, size, mapped=False):
    """(shape, whether in Fortran order, dtype, length of the header) of a member, after checking that it holds exactly such an array.

    Args:
        mapped: the caller maps the array instead of reading it, so its size does not count.
    """
    if not mapped:
        check_member(member, size)
    with archive.open(member) as file:
        *_, major, minor = PREFIX.unpack(file.read(PREFIX.size))
        length = int.from_bytes(file.read(2 if major == 1 else 4), "little")
        if (major, minor) not in ((1, 0), (2, 0)) or length > MOST_HEADER:
            raise ValueError(f"array {member.filename[:100]!a} has format {major}.{minor} and a header of {length} bytes; expected 1.0 or 2.0, and "
                             f"at most {MOST_HEADER}")
    with archive.open(member) as file:
        np.lib.format.read_magic(file)
        shape, fortran, dtype = getattr(np.lib.format, f"read_array_header_{major}_0")(file)
        start = file.tell()
    if dtype.kind not in "biufcSU" or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"array {member.filename[:100]!a} has type {str(dtype)[:100]} and shape {str(shape)[:100]}; expected numbers or text")
    if math.prod(max(n, 1) for n in shape) >= 2**60 or start + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"array {member.filename[:100]!a} of shape {str(shape)[:100]} and type {dtype} is not what its {member.file_size} bytes hold")
    return shape, fortran, dtype, start


def place(file, member, size):
    """Offset of a stored member's bytes in its file of `size` bytes."""
    file.seek(member.header_offset)
    signature, *lengths = LOCAL.unpack(file.read(LOCAL.size))
    start = member.header_offset + LOCAL.size + sum(lengths)
    if signature != b"PK\3\4" or member.compress_size != member.file_size or start + member.file_size > size:
        raise ValueError(f"{member.filename[:100]!a} is not where the archive says")
    return start
