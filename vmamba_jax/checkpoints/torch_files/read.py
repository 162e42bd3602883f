"""Reads weights files of other frameworks into NumPy arrays; detects the format from the content."""
import os
import pathlib

import numpy as np
import safetensors

from vmamba_jax.checkpoints.torch_files import legacy, zip_archive
from vmamba_jax.core import limits

NOT_WEIGHTS = {  # first bytes of files that users have in place of weights -> what they are
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves (run `git lfs pull`)",
    b"<": "a web page, not weights (the download failed)", b"\x1f\x8b": "compressed by gzip; decompress it first",
    b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "a numpy .npy file"}

INDEX = ".index.json"  # the end of the name of a file that lists the shards of a large model
MOST_HEADER = 4 << 20  # bytes of a safetensors header, which take up to ten times as much memory; a tensor takes about 100
SAFETENSORS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64")


def read_torch(path):
    """The content of a .pth, .pt or .safetensors file, read without PyTorch and without running any code of the file.

    A file is read within 50 MB of memory and eight times its size.

    Args:
        path: a file of `torch.save` (the zip format, or the one before PyTorch 1.6) or in the safetensors format; the content decides
            the format, not the name. Or the index of a model in several such files, *.index.json, with the files beside it.

    Returns:
        The file's object: {name: NumPy array} for a bare state dict; for a training checkpoint its nested dicts and lists, with tensors as
        NumPy arrays (bfloat16 and float8 from ml_dtypes) and configuration objects as plain dicts; for the objects of MMSegmentation's and
        MMDetection's training records, the text "skipped: " and their name. Tensors that share a storage in the file
        share memory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a message that begins with the path: the file is corrupt, truncated, or holds anything but tensors, containers,
            numbers, strings and configuration. Any other global in a pickle is refused by name and never imported or called.
    """
    if os.fspath(path).endswith(INDEX):
        return read_shards(pathlib.Path(path))
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(512)
        file.seek(0)
        try:
            return reader(head)(file, size)
        except Exception as error:  # a hostile file can raise anything in a parser; the caller gets one kind of error
            message = str(error) if type(error) is ValueError else f"corrupt or truncated ({type(error).__name__}: {error})"
            raise ValueError(f"{os.fspath(path)}: {message}") from error


def read_shards(path):
    """The arrays of the files that an index lists as {"weight_map": {name: file}}."""
    index = limits.parse_json(path.read_bytes(), path)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) and name == os.path.basename(name) for name in places.values()):
        raise ValueError(f"{path}: expected {{'weight_map': {{name: file}}}} with files in the same folder")
    arrays = {}
    for name in sorted(set(places.values())):
        try:
            shard = read_torch(path.with_name(name))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path.with_name(name)}: no such file, which {path.name} lists as a part of the weights") from error
        listed = {key for key, place in places.items() if place == name}
        if not isinstance(shard, dict) or shard.keys() != listed:
            differing = sorted(map(str, listed ^ (shard.keys() if isinstance(shard, dict) else set())))
            raise ValueError(f"{path.with_name(name)}: expected the {len(listed)} weights that {path.name} lists; differing: {', '.join(differing[:5])}")
        arrays |= shard
    return arrays


def reader(head):
    """The function (file, size) -> tree for a file that starts with `head`."""
    if head[4:9] == b"\0\0\0\0{":  # a length below 2**32, then the header's JSON
        return read_safetensors
    if head.startswith(b"PK\3\4"):
        return zip_archive.read
    if head.startswith(b"\x80"):
        return legacy.read
    if head[257:262] == b"ustar":
        raise ValueError("the tar format of PyTorch before 0.2, which is not supported; load and save it again with a newer torch")
    for start, what in NOT_WEIGHTS.items():
        if head.lstrip().startswith(start):
            raise ValueError(what)
    if not head:
        raise ValueError("the file is empty")
    raise ValueError(f"neither a file of torch.save nor safetensors (it starts with {head[:8]!r})")


def read_safetensors(file, size):
    """The arrays of a safetensors file, by name; the safetensors package checks every bound against the file's size."""
    if (header := int.from_bytes(file.read(8), "little")) > MOST_HEADER:
        raise ValueError(f"a header of {header} bytes; expected at most {MOST_HEADER}")
    arrays = {}
    with safetensors.safe_open(file.name, "np") as tensors:
        for name in tensors.keys():
            kind = tensors.get_slice(name).get_dtype()
            if kind not in SAFETENSORS:
                raise ValueError(f"refused: {name!a} has the type {kind}; expected one of {', '.join(SAFETENSORS)}")
            array = tensors.get_tensor(name)
            if kind == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
                raise ValueError(f"{name!a} is boolean but holds other bytes than 0 and 1")
            arrays[name] = array
    return arrays
