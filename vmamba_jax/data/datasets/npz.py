"""Images and labels as arrays in an .npz file, the layout of the released generated sets (Wang et al. 2023, arXiv 2302.04638)."""
import functools
import os
import zipfile

import numpy as np

from vmamba_jax.core import zip_files
from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.source import Arrays, digest

ADVICE = (
    "An .npz set is ROOT/<split>.npz with arrays image (n, H, W, C) uint8 and label (n,) integers, as the generated sets of "
    "'Better Diffusion Models Further Improve Adversarial Training' (1m.npz and so on). Pass file=... for a file of another name."
)


def load(split, root=None, *, file=None, image_key="image", label_key="label", classes=None):
    """Arrays of an .npz file; images stored without compression (`np.savez`) are memory-mapped, others are read into memory.

    Compressed arrays may unpack to 20 MB and three times the file's size; `np.savez` stores larger ones.

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
        with open(path, "rb") as file:
            try:
                size, archive = os.fstat(file.fileno()).st_size, zip_files.open_zip(file)
                members = {info.filename: info for info in archive.infolist()}
                if absent := [key for key in (image_key, label_key) if f"{key}.npy" not in members]:
                    raise ValueError(f"it has no array {absent[0]!r} but {str(sorted(name.removesuffix('.npy') for name in members))[:500]}")
                images, labels = (_array(file, archive, members[f"{key}.npy"], size) for key in (image_key, label_key))
            except Exception as error:  # a damaged file can raise nearly anything
                raise ValueError(f"{path}: expected a whole .npz file, but {error or type(error).__name__}") from error
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


def _array(file, archive, member, size):
    """One array of an .npz file of `size` bytes, memory-mapped if it is stored."""
    if member.compress_type != zipfile.ZIP_STORED or not member.file_size or member.flag_bits & 1:
        return zip_files.read_array(archive, member, size)
    start = zip_files.place(file, member, size)
    shape, fortran, dtype, header = zip_files.array_header(archive, member, size, mapped=True)
    if not np.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "r", start + header, shape, "F" if fortran else "C")
