"""Images and labels as arrays in an .npz file, the layout of the released generated sets (Wang et al. 2023, arXiv 2302.04638)."""
import functools
import zipfile
import zlib

import numpy as np

from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.source import Arrays, digest

LOCAL_HEADER = 30  # bytes of a zip member's local header, before its name and extra field
ADVICE = (
    "An .npz set is ROOT/<split>.npz with arrays image (n, H, W, C) uint8 and label (n,) integers, as the generated sets of "
    "'Better Diffusion Models Further Improve Adversarial Training' (1m.npz and so on). Pass file=... for a file of another name."
)


def load(split, root=None, *, file=None, image_key="image", label_key="label", classes=None):
    """Arrays of an .npz file; images stored without compression (`np.savez`) are memory-mapped, others are read into memory.

    Args:
        split: "train", "validation" or "test".
        root: see `data.load`.
        file: name of the file under root; None: <split>.npz.
        image_key, label_key: names of the arrays.
        classes: names in label order; None: the labels' numbers.

    Raises:
        DataNotFoundError: an absent file.
        ValueError: a damaged file, or arrays of another kind.
    """
    check_split(split)
    path = root_folder(root, ADVICE) / (f"{split}.npz" if file is None else str(file))
    if not path.is_file():
        raise DataNotFoundError(f"{path}: no such file. {ADVICE}")
    return Npz(path, image_key, label_key, classes, split)


class Npz(Arrays):
    """Arrays of an .npz file, memory-mapped where possible; a pickle of it holds the path, not the arrays."""

    def __init__(self, path, image_key, label_key, classes, split):
        self._made_from = (path, image_key, label_key, classes, split)
        try:
            with zipfile.ZipFile(path) as archive:
                members = {info.filename: info for info in archive.infolist()}
                for key in (image_key, label_key):
                    if f"{key}.npy" not in members:
                        raise ValueError(f"{path}: expected an array {key!r}, got {sorted(name.removesuffix('.npy') for name in members)}")
                images, labels = (_array(path, archive, members[f"{key}.npy"]) for key in (image_key, label_key))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path}: expected a whole .npz file, but it is damaged or truncated ({error})") from error
        self._sums = [(members[f"{key}.npy"].CRC, members[f"{key}.npy"].file_size) for key in (image_key, label_key)]
        try:
            super().__init__(images, labels, classes, name=path.stem, split=split)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 of the arrays' lengths and of their CRC-32 checksums in the file; the images are not read."""
        return digest(self._sums)

    def __reduce__(self):
        return Npz, self._made_from


def _array(path, archive, member):
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{path}: expected array {member.filename} in format 1.0 or 2.0, got {version}")
        shape, fortran, dtype = getattr(np.lib.format, f"read_array_header_{version[0]}_0")(file)
        header = file.tell()
    if member.compress_type != zipfile.ZIP_STORED or dtype.hasobject or not np.prod(shape):
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        local = file.read(LOCAL_HEADER)
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    offset = member.header_offset + LOCAL_HEADER + lengths + header
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
