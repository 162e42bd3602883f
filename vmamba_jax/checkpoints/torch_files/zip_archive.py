"""Reads the format of `torch.save` since 1.6: a zip archive of a pickle (`data.pkl`) and one uncompressed member per storage."""
import io
import zipfile
import zlib

import numpy as np

from vmamba_jax.checkpoints.torch_files import tensors
from vmamba_jax.core import zip_files
from vmamba_jax.core.zip_files import LOCAL


def read(file, size):
    """The object tree in a file.

    Args:
        file: binary and seekable. size: its length in bytes.

    Raises:
        ValueError: a damaged file, or one that is refused; zipfile's own errors too.
    """
    archive = Archive(file, size)
    pickles = [name for name in archive.members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"a zip archive with {len(pickles)} pickles named */data.pkl; expected the one that torch.save writes")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in archive.members:
        raise ValueError("refused: a TorchScript program (torch.jit.save); save the module's state_dict() with torch.save instead")
    order = archive.bytes(f"{folder}byteorder", 16) if f"{folder}byteorder" in archive.members else b"little"
    if order not in (b"little", b"big"):
        raise ValueError(f"the byte order is {order!a}; expected little or big")
    storages = tensors.Storages(size, order.decode(), lambda key, into: archive.read(f"{folder}data/{key}", into))
    return tensors.load(io.BytesIO(archive.bytes(pickles[0], size)), storages)


class Archive:
    """The members of an uncompressed zip archive; nothing is ever decompressed."""

    def __init__(self, file, size):
        self.file, self.size, self.members = file, size, {}
        for info in zip_files.open_zip(file).infolist():
            if info.filename in self.members:
                raise ValueError(f"the archive lists {info.filename!a} twice")
            self.members[info.filename] = info

    def find(self, name):
        """A member's ZipInfo, after a check of its position; leaves the file at its first byte."""
        info = self.members.get(name)
        if info is None:
            raise ValueError(f"the archive has no {name!a}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"refused: {name!a} is compressed or encrypted; torch.save does neither")
        if not 0 <= info.header_offset <= self.size - LOCAL.size:
            raise ValueError(f"{name!a} is not where the archive says")
        self.file.seek(info.header_offset)
        signature, *lengths = LOCAL.unpack(self.file.read(LOCAL.size))
        start = info.header_offset + LOCAL.size + sum(lengths)
        if signature != b"PK\3\4" or info.compress_size != info.file_size or start + info.file_size > self.size:
            raise ValueError(f"{name!a} is not where the archive says")
        self.file.seek(start)
        return info

    def read(self, name, into):
        """Fill the uint8 array `into` with all of a member."""
        info = self.find(name)
        if info.file_size != into.size:
            raise ValueError(f"{name!a} has {info.file_size} bytes; expected {into.size}")
        if self.file.readinto(into) != into.size:
            raise ValueError(f"{name!a} is truncated")
        if info.CRC and zlib.crc32(into) != info.CRC:  # torch has an option that leaves the checksums at 0
            raise ValueError(f"{name!a} is corrupt: its checksum does not match")

    def bytes(self, name, limit):
        """All of a member of at most `limit` bytes."""
        size = self.find(name).file_size
        if size > limit:
            raise ValueError(f"{name!a} has {size} bytes; expected at most {limit}")
        into = np.empty(size, np.uint8)
        self.read(name, into)
        return into.tobytes()
