"""Every reader of foreign bytes under one rule: a ValueError that names the file, or a result, within 5 s and 50 MB + 8 times the file's size."""
import gzip
import hashlib
import io
import json
import pickle
import resource
import struct
import tarfile
import zipfile
import zlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from tests.helpers import fuzz
from tests.helpers.fuzz import plain
from tests.helpers.torch_files import legacy_file, zip_file
from vmamba_jax import checkpoints, data
from vmamba_jax.core import files, limits, zip_files
from vmamba_jax.core.pickled_arrays import read_arrays
from vmamba_jax.data.datasets import corrupted, mnist
from vmamba_jax.data.decoding import archives
from vmamba_jax.data.decoding.images import Decoder
from vmamba_jax.data.subsets import _names
from vmamba_jax.evaluation.staged import Ledger

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


def encoded(form, mode="RGB", **options):
    out = io.BytesIO()
    Image.fromarray(PIXELS[0]).convert(mode).save(out, form, **options)
    return out.getvalue()


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def zipped(members, method=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(members, **options):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def png(content):
    """The chunks of a PNG with right checksums, so that a changed header is read."""
    out, at = content[:8], 8
    while at + 8 <= len(content) and len(out) < 10**6:
        size = min(int.from_bytes(content[at:at + 4], "big"), max(len(content) - at - 12, 0))
        body = content[at + 4:at + 8 + size]
        out += struct.pack(">I", max(len(body) - 4, 0)) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return out


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def npz_seeds(arrays):
    raw = {f"{name}.npy": npy(x) for name, x in arrays.items()}
    seeds = [(zipped(raw), plain), (zipped(raw, zipfile.ZIP_DEFLATED), plain)]
    return seeds + [(raw[name], lambda content, name=name, method=method: zipped({**raw, name: content}, method))
                    for name in raw for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]


def exported_seeds():
    program = bytes(jax.export.export(jax.jit(lambda w, x: x.sum((1, 2)) * w["a"]))({"a": np.float32(1)}, jax.ShapeDtypeStruct((1, 4, 4, 3), np.float32)).serialize())
    parts = {"weights.safetensors": safetensors.numpy.save({"a": np.float32([2])}), "cpu.jax_export": program}
    facts = {"batch_size": 1, "image_shape": [4, 4, 3], "platforms": ["cpu"], "classes": 3}

    def pack(parts, metadata=None):
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
        return zipped({**parts, "metadata.json": metadata or json.dumps(facts | {"sha256": sums}).encode()})

    sums = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    return [(pack(parts), plain), (json.dumps(facts | {"sha256": sums}).encode(), lambda content: pack(parts, content)),
            *((parts[name], lambda content, name=name: pack(parts | {name: content})) for name in parts)]


def tiny_imagenet_seeds():
    members = {"wnids.txt": b"n01\nn02", "val/val_annotations.txt": b"a.png\tn01\t0\t0\nb.png\tn02\t1\t1\n", "val/images/a.png": encoded("PNG"), "val/images/b.png": b"x"}
    members = {f"tiny-imagenet-200/{name}": content for name, content in members.items()}
    return [(zipped(members), plain), (zipped(members, zipfile.ZIP_DEFLATED), plain),
            (members["tiny-imagenet-200/val/val_annotations.txt"], lambda content: zipped(members | {"tiny-imagenet-200/val/val_annotations.txt": content})),
            (members["tiny-imagenet-200/wnids.txt"], lambda content: zipped(members | {"tiny-imagenet-200/wnids.txt": content}, zipfile.ZIP_DEFLATED))]


STATE = {"facts": np.array(json.dumps({"identity": {"model": "x"}, "stages": [{"name": "clean", "attacked": 3, "broken": 0, "seconds": 0.5}]})),
         "broken_by": np.zeros(3, np.int16), "margin": np.zeros(3, np.float32), "attempted": np.zeros(3, bool)}
TAR = {"a/caf\xe9.png": b"12345", "b/" + "long" * 60 + ".png": b"x" * 700, "a/2.png": b""}
CIFAR = {b"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), b"labels": [1, 2], b"filenames": ["a", "b"]}
TORCH = {"model": {"a.weight": np.ones((2, 3), np.float32), "b": np.arange(4)}, "epoch": 3, "sets": {1, 2}, "list": [1, "a", (2.5, None)]}
IMAGES = [(encoded(form, mode, **options), pack) for form, mode, options, pack in (
    ("PNG", "RGB", {}, plain), ("PNG", "P", {}, png), ("PNG", "RGB", {}, png), ("PNG", "L", {}, png), ("JPEG", "RGB", {}, plain),
    ("JPEG", "L", {"progressive": True}, plain), ("GIF", "P", {}, plain), ("BMP", "RGB", {}, plain), ("TIFF", "RGB", {}, plain),
    ("TIFF", "RGB", {"compression": "tiff_deflate"}, plain), ("TIFF", "RGB", {"compression": "tiff_lzw"}, plain), ("WEBP", "RGB", {}, plain), ("PPM", "RGB", {}, plain))]


def read_set(name, **options):
    """A reader that opens the data set whose file has this path, and reads all its examples."""
    def read(path):
        source = data.load(name, "test", path.parent, **options)
        for i in range(len(source)):
            try:
                source[i]
            except data.BadImageError as error:
                assert str(path.parent) in str(error)
    return read


def read_tar(path):
    for place in archives._index_places(path):
        place.unlink(missing_ok=True)
    for nested in (False, True):
        archive = archives.Tar(path, nested)
        assert all(len(archive.read(i)) == size for i, size in enumerate(archive.sizes)) and all(name.encode() for name in archive.names)


def read_index(path):
    """A damaged index beside a good tar file is rebuilt."""
    tar = path.with_name("test.tar")
    tar.write_bytes(tarred(TAR))
    archive = archives.Tar(tar)
    assert sorted(map(len, map(archive.read, range(3)))) == [0, 5, 700]


def read_image(path):
    raw = path.read_bytes()
    for decoder in (Decoder(size=8), Decoder(draft=8, channels=1)):
        assert decoder(raw, path).dtype == np.uint8


def index_seeds():
    """Indices of the tar file that `read_index` writes; its time of change is not known, so they are for the reader of arrays."""
    return npz_seeds({"key": np.zeros(4, np.int64), "names": np.frombuffer(b"a\0b", np.uint8), "offsets": np.zeros(2, np.int64), "sizes": np.zeros(2, np.int64)})


READERS = {  # name -> (reader, function that makes its seeds, name of the file)
    "torch": (checkpoints.read_torch, lambda: [(zip_file(TORCH), plain), (legacy_file(TORCH), plain)], "x.pth"),
    "safetensors": (checkpoints.read_torch, lambda: [(safetensors.numpy.save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}), plain)], "x.safetensors"),
    "shards": (checkpoints.read_torch, lambda: [(b'{"metadata": {"total_size": 3}, "weight_map": {"a": "x.safetensors", "b": "y.bin"}}', plain)], "x.index.json"),
    "pickled arrays": (read_arrays, lambda: [(pickle.dumps(CIFAR, protocol), plain) for protocol in (0, 2, 4, 5)], "x"),
    "cifar python": (read_set("cifar10"), lambda: [(pickle.dumps(CIFAR, 2), plain), (pickle.dumps(CIFAR, 4), plain)], "test_batch"),
    "cifar binary": (read_set("cifar10"), lambda: [(bytes(3073 * 2), plain)], "test_batch.bin"),
    "idx": (lambda path: mnist.read_idx(path, 3), lambda: [(idx(PIXELS[..., 0]), plain), (idx(PIXELS[..., 0]), gzip.compress), (gzip.compress(idx(PIXELS[..., 0])), plain)], "x"),
    "npy": (lambda path: np.array(corrupted._read_npy(path)), lambda: [(npy(PIXELS), plain), (npy(np.arange(3)), plain)], "fog.npy"),
    "npz": (read_set("npz"), lambda: npz_seeds({"image": PIXELS, "label": np.arange(12) % 3}), "test.npz"),
    "npz arrays": (lambda path: zip_files.read_npz(path, ("names", "sizes")), index_seeds, "x.npz"),
    "tar index": (read_index, index_seeds, "test.tar.index.npz"),
    "tar": (read_tar, lambda: [(tarred(TAR, format=kind, encoding=encoding), plain) for kind, encoding in (
        (tarfile.GNU_FORMAT, "latin-1"), (tarfile.PAX_FORMAT, "utf-8"))] + [(tarred({"n01.tar": tarred({"x.JPEG": b"123"})}), plain)], "x.tar"),
    "zip": (read_set("tiny_imagenet", size=8), tiny_imagenet_seeds, "tiny-imagenet-200.zip"),
    "image": (read_image, lambda: IMAGES, "x.jpg"),
    "names": (_names, lambda: [(b'{"images": ["a/b.png", "c/d.png"]}', plain), (b'["a.png"]', plain)], "x.json"),
    "json": (lambda path: limits.parse_json(path.read_bytes(), path), lambda: [(b'{"a": [1, 2.5, null, {"b": "text"}], "c": {"d": []}}', plain)], "x.json"),
    "saved json": (files.read_json, lambda: [(b'{"a": [1, 2.5, null, {"b": "text"}], "c": {"d": []}}', plain)], "x.json"),
    "evaluation state": (lambda path: Ledger(3, {"model": "x"}, path), lambda: npz_seeds(STATE), "state.npz"),
    "json lines": (files.read_json_lines, lambda: [(b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": NaN}\n', plain)], "x.jsonl"),
    "exported": (lambda path: checkpoints.load_exported(path, "cpu"), exported_seeds, "model.zip"),
}


def check(tmp_path, name, count):
    read, seeds, file = READERS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, most, longest = fuzz.fuzz(read, seeds(), tmp_path / file, count, named=tmp_path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{name}: {count} files, {refused} refused, {most / 1e6:.1f} MB of Python memory and {grown:.0f} MB more of the process at most, {longest:.2f} s at most")
    assert refused > count / 50 or name == "tar index"
    assert grown < 400, grown  # Pillow's own memory, which is not traced


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", READERS)
def test_mutated_files(tmp_path, name):
    check(tmp_path, name, 25)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_mutated_files(tmp_path, name):
    check(tmp_path, name, 2500)
