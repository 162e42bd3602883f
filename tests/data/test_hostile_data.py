"""Data files that are missing, thin, huge once unpacked, or of another kind than their names say: counted as bad or refused by name, within little memory."""
import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data
from vmamba_jax.core import zip_files
from vmamba_jax.data.datasets import mnist
from vmamba_jax.data.decoding import archives, images
from vmamba_jax.data.decoding.images import BadImageError, Decoder


def refuse(action, message, kind=ValueError, memory=50e6):
    """Asserts the error, and that it took little memory of Python and NumPy."""
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=message):
            action()
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()


def png(width, height, mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, "PNG")
    return out.getvalue()


def folder(root, split="train", bad=()):
    """Two classes of three images, and bad entries {path: function that makes it}."""
    for name in "ab":
        (root / split / name).mkdir(parents=True)
        for i in range(3):
            (root / split / name / f"{i}.png").write_bytes(png(8, 8))
    for path, make in dict(bad).items():
        make(root / split / path)
    return root


BAD = {"a/9.png": lambda path: path.symlink_to("/nonexistent"), "a/8.png": os.mkfifo, "b/9.png": lambda path: path.write_bytes(b""),
       "b/8.png": lambda path: path.write_bytes(png(20_000, 1)), "b/7.png": lambda path: path.mkdir() or path.rmdir() or path.symlink_to(path.name)}


def test_images_that_cannot_be_read_count_as_bad(tmp_path):
    """A dangling link, a pipe (which would never end), an empty file, a thin image, a link to itself."""
    source = data.load("folder", "train", folder(tmp_path, bad=BAD), size=224)
    assert len(source) == 6 + len(BAD) and source.fingerprint
    pipeline = data.Pipeline(source, len(source), shuffle=False, max_bad=len(BAD))
    batch = pipeline[0]
    assert batch["image"].shape == (len(source), 224, 224, 3) and len(pipeline.bad) == len(BAD)
    for name in BAD:
        assert any(str(tmp_path / "train" / name) in message for message in pipeline.bad.values()), name
    with pytest.raises(data.BadImagesError, match="max_bad=2: expected at most that many"):
        data.Pipeline(source, len(source), shuffle=False, max_bad=2)[0]


def test_a_transform_on_a_thin_image(tmp_path):
    source = data.load("folder", "train", folder(tmp_path, bad={"b/8.png": BAD["b/8.png"]}))
    pipeline = data.Pipeline(source, 7, shuffle=False, max_bad=1, transform=data.transforms.SimpleCrop(size=224, pad=4))
    assert len(pipeline[0]["label"]) == 7
    assert "image 6 of <ImageFolder" in pipeline.bad[6] and "20000 x 1 pixels" in pipeline.bad[6]


def test_an_unpacked_set_with_a_missing_file(tmp_path):
    (tmp_path / "x.png").write_bytes(png(8, 8))
    (tmp_path / "y.png").symlink_to("/nonexistent")
    directory = archives.Directory(tmp_path)
    assert directory.names == ["x.png", "y.png"] and directory.sizes.tolist() == [len(png(8, 8)), -1]
    with pytest.raises(BadImageError, match="y.png: expected a file that can be read, but No such file"):
        directory.read(1)


def test_links_without_end(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1.png").write_bytes(b"")
    (tmp_path / "again").symlink_to(tmp_path / "a")  # a folder twice has an end
    assert archives.visible_files(tmp_path) == ["a/b/1.png", "again/b/1.png"]
    for name in ("one", "two"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    with pytest.raises(ValueError, match="expected no link to a folder above it"):
        archives.visible_files(tmp_path)


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (65_000, 2)])
def test_thin_images(size):
    with pytest.raises(BadImageError, match="x.png: .* after the resize; expected at most 16777216 pixels"):
        Decoder(size=224)(png(*size), "x.png")
    assert Decoder()(png(*size), "x.png").shape == (size[1], size[0], 3)
    assert Decoder(size=224)(png(2500, 250), "x.png").shape == (224, 224, 3)  # a panorama


def test_images_of_more_pixels_than_their_bytes_justify():
    def header(width, height):
        raw = png(8, 8)
        body = b"IHDR" + struct.pack(">II", width, height) + raw[24:29]
        return raw[:12] + body + struct.pack(">I", zlib.crc32(body)) + raw[33:]

    for size in ((5000, 5000), (2**31 - 1, 1), (2**16, 2**16)):
        refuse(lambda size=size: Decoder(size=8)(header(*size), "x.png"), "x.png: .*pixels", BadImageError)
    images.check_pixels((4096, 4096), 100)
    images.check_pixels((9331, 6530), 10_000_000)  # the largest of ImageNet
    for size, encoded in (((4096, 4097), 0), ((10_000, 10_000), 10**9)):
        with pytest.raises(ValueError, match="expected at most"):
            images.check_pixels(size, encoded)


def test_a_program_is_no_image(tmp_path, monkeypatch):
    """PostScript in a .jpg, for which Pillow starts Ghostscript."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(BadImageError, match=r"x.jpg: .*cannot identify image file"):
        Decoder(size=8)(eps, "x.jpg")
    assert not (tmp_path / "ran").exists()


def test_gray_of_16_bits():
    x = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    out = io.BytesIO()
    Image.fromarray(x).save(out, "PNG")
    assert np.array_equal(Decoder(channels=1)(out.getvalue(), "x")[..., 0], np.round(x / 257))


def npy(shape, body, kind="|u1"):
    head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    head += b" " * ((64 - (len(head) + 11) % 64) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("image, label, message", [
    (npy((12, 4, 4, 3), bytes(480)), None, "is not what its .* bytes hold"), (npy((2**40, 4, 4, 3), bytes(480)), None, "is not what its"),
    (npy((9, 4, 4, 3), bytes(480)), None, "is not what its"), (npy((-1, 4, 4, 3), bytes(480)), None, "has type uint8 and shape"),
    (npy((2**62, 4), b""), None, "is not what its"), (npy((0, 2**62, 4, 3), b""), None, "is not what its"),
    (None, npy((10,), bytes(80), "|O8"), "has type object"), (None, npy((10,), bytes(80), "|V8"), "expected numbers or text"),
    (None, npy((10,), struct.pack("<10q", *[2**40] * 10), "<i8"), "labels=1099511627776 .the highest.: expected less than 65536"),
    (None, npy((10,), struct.pack("<10q", *[-1] * 10), "<i8"), "labels from -1"),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(99), None, "a header of 2147483647 bytes"), (b"\x93NUMPY\x03\x00", None, "format 3.0")])
def test_npz_headers(tmp_path, method, image, label, message):
    with zipfile.ZipFile(tmp_path / "test.npz", "w", method) as archive:
        archive.writestr("image.npy", image or npy((10, 4, 4, 3), bytes(480)))
        archive.writestr("label.npy", label or npy((10,), bytes(80), "<i8"))
    refuse(lambda: data.load("npz", "test", tmp_path), f"test.npz: .*{message}", memory=5e6)


def test_archives_that_unpack_to_more_than_their_size_justifies(tmp_path):
    path = tmp_path / "test.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", npy((100, 1000, 1000, 3), bytes(3 * 10**8)))
        archive.writestr("label.npy", npy((100,), bytes(800), "<i8"))
    refuse(lambda: data.load("npz", "test", tmp_path), "test.npz: .*unpacks to 300000[0-9]+ bytes", memory=5e6)
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">III", 10_000, 100, 100) + bytes(10**8), 1))
    refuse(lambda: mnist.read_idx(tmp_path / "x.gz", 3), "x.gz: expected 100000000 bytes .* at most")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**8))
    refuse(lambda: archives.Zip(tmp_path / "x.zip").read(0), "x.zip:a.png: .*unpacks to 100000000", BadImageError, memory=5e6)
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
            archive.writestr("a.png", bytes(100))
        refuse(lambda: archives.Zip(tmp_path / "x.zip").read(0), "x.zip:a.png: .*another method than deflate", BadImageError, memory=5e6)


def test_a_directory_without_members(tmp_path):
    """A zip file that is nearly all directory, whose entries take 16 times their size."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    n = 300_000
    path = tmp_path / "x.zip"
    path.write_bytes(entry * n + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(entry) * n, 0, 0))
    refuse(lambda: archives.Zip(path), "x.zip: expected a whole zip file, .*its directory has", memory=50e6)
    with pytest.raises(ValueError, match="x.zip: expected a whole .npz file"):
        zip_files.read_npz(path, ["x"])


def tar(path, members, **options):
    """Writes a tar file of (name or TarInfo, content)."""
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_names_that_are_not_utf8(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tar(tmp_path / "test.tar", [("a/caf\xe9.png", png(8, 8)), ("\xfcber/2.png", png(8, 8))], format=tarfile.GNU_FORMAT, encoding="latin-1")
    for _ in range(2):  # from the tar file, then from its index
        source = data.load("tar", "test", tmp_path)
        assert source.files == ["a/caf\xe9.png", "\xfcber/2.png"] and source.classes == ("a", "\xfcber") and source[1][1] == 1
    tar(tmp_path / "test.tar", [("a/caf\xe9.png", png(8, 8))], format=tarfile.GNU_FORMAT, encoding="utf-8")
    assert data.load("tar", "test", tmp_path).files == ["a/caf\xe9.png"]


def test_hostile_tars(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "test.tar"
    sparse = tarfile.TarInfo("a/1.png")
    sparse.type = tarfile.GNUTYPE_SPARSE
    tar(path, [(sparse, b"x" * 512)])
    refuse(lambda: data.load("tar", "test", tmp_path), "test.tar: .*sparse")
    tar(path, [("a/1.png", b"x")] * 3000, format=tarfile.PAX_FORMAT, pax_headers={"path": "a/" + "n" * 60_000})  # one name for all
    refuse(lambda: data.load("tar", "test", tmp_path), "test.tar: expected names of at most")
    tar(path, [("a/1.png", b"x")] * 10, format=tarfile.PAX_FORMAT, pax_headers={f"k{i}": "v" for i in range(1000)})
    refuse(lambda: data.load("tar", "test", tmp_path), "test.tar: .*global headers")
    tar(path, [("a/1.png", b"x")], format=tarfile.PAX_FORMAT, pax_headers={"path": "a/1.png\0b/2.png"})
    refuse(lambda: data.load("tar", "test", tmp_path), "test.tar: .*zero byte")
    tar(path, [(link := tarfile.TarInfo("x"), b"")])
    link.type = tarfile.GNUTYPE_LONGNAME
    path.write_bytes((link.tobuf(tarfile.GNU_FORMAT)[:512]) * 3000)
    refuse(lambda: data.load("tar", "test", tmp_path), "test.tar: ")


def test_a_wrong_index_is_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tar(tmp_path / "test.tar", [("a/1.png", png(8, 8))])
    data.load("tar", "test", tmp_path)
    index = tmp_path / "test.tar.index.npz"
    good = zip_files.read_npz(index, ("key", "names", "offsets", "sizes"))
    for change in ({"sizes": good["sizes"] + 2**40}, {"offsets": -good["offsets"]}, {"names": np.frombuffer(b"a\0b", np.uint8)}, {"sizes": good["sizes"].astype(float)}):
        np.savez(index, **good | change)
        assert data.load("tar", "test", tmp_path)[0][0].shape == (8, 8, 3)
