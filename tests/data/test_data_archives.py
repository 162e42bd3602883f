"""Sets in tar and zip files: ImageNet's two releases, tar files of class folders, Tiny-ImageNet, and damaged archives."""
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.data.decoding import archives
from vmamba_jax.data.decoding.images import Decoder

TENCH, GOLDFISH = "n01440764", "n01443537"


def photo(seed, side=16):
    file = io.BytesIO()
    x = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(x).save(file, "jpeg")
    return file.getvalue()


def pixels(raw):
    return np.asarray(Image.open(io.BytesIO(raw)))


def tar_bytes(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return file.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def ilsvrc(tmp_path):
    """Two classes of the training tar, in the order a release might have, and three validation images."""
    photos = {f"{name}/{name}_{i}.JPEG": photo(10 * k + i) for k, name in enumerate((GOLDFISH, TENCH)) for i in range(3)}
    inner = {f"{name}.tar": tar_bytes({key.split("/")[1]: raw for key, raw in photos.items() if key.startswith(name)})
             for name in (GOLDFISH, TENCH)}
    (tmp_path / imagenet.TRAIN).write_bytes(tar_bytes(inner))
    photos |= {f"ILSVRC2012_val_{i:08d}.JPEG": photo(100 + i) for i in (3, 1, 2)}
    (tmp_path / imagenet.VALIDATION).write_bytes(tar_bytes({name: raw for name, raw in photos.items() if name.startswith("ILSVRC")}))
    return tmp_path, photos


def test_the_released_training_tar(ilsvrc):
    root, photos = ilsvrc
    source = data.load("imagenet", "train", root)
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1] and len(source.classes) == 1000 and source.classes[1] == GOLDFISH
    for i, (image, label) in enumerate(source):
        assert np.array_equal(image, pixels(photos[f"{(TENCH, GOLDFISH)[label]}/{(TENCH, GOLDFISH)[label]}_{i % 3}.JPEG"]))
    train, held = (data.load("imagenet", split, root, validation=2) for split in ("train", "validation"))
    assert len(train) == 4 and sorted(held.labels) == [0, 1] and not {*train.members} & {*held.members}
    assert data.load("imagenet", "train", root, size=8, resize=9).gather([5, 0])[0].shape == (2, 8, 8, 3)
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy[4][0], source[4][0]) and copy.fingerprint == source.fingerprint != train.fingerprint


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_released_validation_tar(ilsvrc, tmp_path, split):
    root, photos = ilsvrc
    source = data.load("imagenet", split, root)
    assert [source.classes[label] for label in source.labels] == ["n01751748", "n09193705", "n02105855"]  # as TFDS lists them
    assert np.array_equal(source[2][0], pixels(photos["ILSVRC2012_val_00000003.JPEG"]))
    (tmp_path / "labels.txt").write_text(f"{TENCH}\n{GOLDFISH}\n{TENCH}\n")
    assert data.load("imagenet", split, root, labels=tmp_path / "labels.txt").labels.tolist() == [0, 1, 0]
    (tmp_path / "labels.txt").write_text(f"{TENCH}\n{GOLDFISH}\n")
    with pytest.raises(ValueError, match="numbered 1 to 2, got 'ILSVRC2012_val_00000003.JPEG'"):
        data.load("imagenet", split, root, labels=tmp_path / "labels.txt")


def test_tar_index_is_rebuilt_on_change(tmp_path, monkeypatch):
    path, build, built = tmp_path / "train.tar", archives._build_index, []
    monkeypatch.setattr(archives, "_build_index", lambda *args: built.append(args) or build(*args))
    path.write_bytes(tar_bytes({"a/0.jpg": photo(0), "b/0.jpg": photo(1)}))
    assert [len(data.load("tar", "train", tmp_path)) for _ in range(3)] == [2, 2, 2] and len(built) == 1
    index = tmp_path / "train.tar.index.npz"
    assert index.is_file()
    path.write_bytes(tar_bytes({"a/0.jpg": photo(2), "b/0.jpg": photo(3), "b/1.jpg": photo(4)}))
    source = data.load("tar", "train", tmp_path)
    assert len(source) == 3 and len(built) == 2 and np.array_equal(source[2][0], pixels(photo(4)))
    index.write_bytes(index.read_bytes()[:50])
    assert len(data.load("tar", "train", tmp_path)) == 3 and len(built) == 3
    index.unlink()
    index.mkdir()  # a path that cannot be written: the index goes to the cache folder
    assert [len(data.load("tar", "train", tmp_path)) for _ in range(2)] == [3, 3] and len(built) == 4
    assert len(list((tmp_path / "cache" / "vmamba_jax").iterdir())) == 1
    assert sorted(os.listdir(tmp_path)) == ["cache", "train.tar", "train.tar.index.npz"]


def test_a_tar_of_class_folders(tmp_path):
    members = {"./set/b/1.jpg": photo(1), "./set/a/x/2.JPG": photo(2), "./set/a/notes.txt": b"no image", "./set/.c/3.jpg": b"", "4.jpg": b""}
    (tmp_path / "val.tar").write_bytes(tar_bytes(members))
    source = data.load("tar", "validation", tmp_path, subdir="set")
    assert source.classes == ("a", "b") and np.array_equal(source[0][0], pixels(photo(2))) and source[1][1] == 1
    assert data.load("tar", "validation", tmp_path, subdir="set", classes=["b", "z", "a"]).labels.tolist() == [0, 2]
    for options, message in (({}, "expected every image in a class folder, got '4.jpg'"), ({"subdir": "no"}, "expected images below subdir='no'"),
                             ({"subdir": "set", "classes": ["a"]}, "names of all folders of .*missing b"), ({"subdir": "set", "classes": "aab"}, "expected each name once")):
        with pytest.raises(ValueError, match=message):
            data.load("tar", "validation", tmp_path, **options)
    with pytest.raises(data.DataNotFoundError, match="expected a file 'train.tar'"):
        data.load("tar", "train", tmp_path)


@pytest.mark.parametrize("damage, message", [
    (lambda raw: raw[:1500], "truncated"),  # within the first image
    (lambda raw: raw[:raw.index(b"b/0.jpg")], "truncated at byte"),  # between two members
    (lambda raw: raw[:raw.index(b"b/0.jpg") + 100], "truncated"),  # within a header
    (lambda raw: raw[:raw.index(b"b/0.jpg")] + b"x" * 512 + raw[raw.index(b"b/0.jpg") + 512:], "damaged or truncated at byte"),
    (lambda raw: b"", "truncated"), (lambda raw: b"text" * 999, "uncompressed tar"), (__import__("gzip").compress, "compressed"),
])
def test_damaged_tars_are_named(tmp_path, damage, message):
    raw = tar_bytes({"a/0.jpg": photo(0, 64), "b/0.jpg": photo(1, 64)})
    path = tmp_path / "train.tar"
    path.write_bytes(damage(raw))
    with pytest.raises(ValueError, match=message) as caught:
        data.load("tar", "train", tmp_path)
    assert str(path) in str(caught.value) and not (tmp_path / "train.tar.index.npz").exists()


def test_damaged_inner_tar(tmp_path):
    inner = tar_bytes({f"{TENCH}_0.JPEG": photo(0), f"{TENCH}_1.JPEG": photo(1)})
    (tmp_path / imagenet.TRAIN).write_bytes(tar_bytes({f"{TENCH}.tar": inner[:1000]}))
    with pytest.raises(ValueError, match=f"{imagenet.TRAIN}:{TENCH}.tar: expected a whole"):
        data.load("imagenet", "train", tmp_path)
    (tmp_path / imagenet.TRAIN).write_bytes(tar_bytes({"n00000000.tar": inner}))
    with pytest.raises(ValueError, match="names of all folders of .*missing n00000000"):
        data.load("imagenet", "train", tmp_path)
    with pytest.raises(data.DataNotFoundError, match=imagenet.VALIDATION):
        data.load("imagenet", "test", tmp_path)


def test_bad_image_in_a_tar(tmp_path):
    (tmp_path / "train.tar").write_bytes(tar_bytes({"a/0.jpg": photo(0), "a/1.jpg": b"text", "b/0.jpg": photo(1)}))
    source = data.load("tar", "train", tmp_path)
    with pytest.raises(data.BadImageError, match="train.tar:a/1.jpg: expected an image"):
        source.picture(1)
    pipeline = data.Pipeline(source, 3, shuffle=False)
    assert pipeline[0]["index"].tolist() == [0, 2, 2] and list(pipeline.bad) == [1]


def tiny_imagenet(root, pack):
    """Three classes, listed in an order of their own, of two training images and one validation image."""
    identifiers, files = ("n03", "n01", "n02"), {}
    for k, name in enumerate(identifiers):
        files |= {f"train/{name}/images/{name}_{i}.JPEG": photo(10 * k + i, 64) for i in range(2)}
        files[f"train/{name}/{name}_boxes.txt"] = b"0\t0\t1\t1"
        files[f"val/images/val_{k}.JPEG"] = photo(50 + k, 64)
    files["wnids.txt"] = "\n".join(identifiers).encode()
    files["val/val_annotations.txt"] = "".join(f"val_{k}.JPEG\t{name}\t0\t0\t62\t62\n" for k, name in enumerate(identifiers)).encode()
    files["test/images/test_0.JPEG"] = photo(99)
    if pack is None:
        for name, raw in files.items():
            path = root / "tiny-imagenet-200" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
    else:
        with zipfile.ZipFile(root / "tiny-imagenet-200.zip", "w", pack) as archive:
            for name, raw in files.items():
                archive.writestr(f"tiny-imagenet-200/{name}", raw)
    return files


@pytest.mark.parametrize("pack", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_tiny_imagenet(tmp_path, pack):
    files = tiny_imagenet(tmp_path, pack)
    train, test = (data.load("tiny_imagenet", split, tmp_path, workers=2) for split in ("train", "test"))
    assert train.classes == ("n01", "n02", "n03") and train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(train.gather([0, 5])[0][1], pixels(files["train/n03/images/n03_1.JPEG"]))
    assert test.labels.tolist() == [2, 0, 1] and np.array_equal(test[1][0], pixels(files["val/images/val_1.JPEG"]))
    assert data.load("tiny_imagenet", "validation", tmp_path).fingerprint == test.fingerprint != train.fingerprint
    few = data.load("tiny_imagenet", "test", tmp_path, classes=2)  # the first two of wnids.txt
    assert few.classes == ("n01", "n03") and few.labels.tolist() == [1, 0]
    held = data.load("tiny_imagenet", "validation", tmp_path, validation=3)
    assert sorted(held.labels) == [0, 1, 2] and len(data.load("tiny_imagenet", "train", tmp_path, validation=3)) == 3
    assert np.array_equal(pickle.loads(pickle.dumps(test))[0][0], test[0][0])
    with pytest.raises(ValueError, match="classes=50: expected at most the 3 of wnids.txt"):
        data.load("tiny_imagenet", "train", tmp_path, classes=50)


def test_damaged_tiny_imagenet(tmp_path):
    with pytest.raises(data.DataNotFoundError, match="tiny-imagenet-200.zip as released"):
        data.load("tiny_imagenet", "train", tmp_path)
    files, path = tiny_imagenet(tmp_path, zipfile.ZIP_STORED), tmp_path / "tiny-imagenet-200.zip"
    raw = path.read_bytes()
    at = raw.index(files["train/n01/images/n01_0.JPEG"])
    path.write_bytes(raw[:at + 200] + b"????" + raw[at + 204:])
    with pytest.raises(data.BadImageError, match="n01_0.JPEG: expected a whole member.*CRC"):
        data.load("tiny_imagenet", "train", tmp_path)[0]
    path.write_bytes(raw[:len(raw) // 2])
    with pytest.raises(ValueError, match="tiny-imagenet-200.zip: expected a whole zip file"):
        data.load("tiny_imagenet", "train", tmp_path)
    path.unlink()
    tiny_imagenet(tmp_path, None)
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t1\t1\n")
    with pytest.raises(ValueError, match="expected a line of .*missing val/images/val_1.JPEG, 2 in all"):
        data.load("tiny_imagenet", "test", tmp_path)
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(data.DataNotFoundError, match="lacks val/val_annotations.txt"):
        data.load("tiny_imagenet", "test", tmp_path)


def test_draft_decodes_large_jpegs_smaller(tmp_path):
    x = np.add.outer(np.arange(300), np.arange(400))[..., None].repeat(3, 2).astype(np.float32) / 3
    file = io.BytesIO()
    Image.fromarray(x.astype(np.uint8)).save(file, "jpeg", quality=95)
    whole, half = Decoder().open(file.getvalue(), "x"), Decoder(draft=150).open(file.getvalue(), "x")
    assert whole.size == (400, 300) and half.size == (200, 150) and Decoder(draft=151).open(file.getvalue(), "x").size == (400, 300)
    close, exact = (Decoder(size=64, resize=70, draft=draft)(file.getvalue(), "x").astype(int) for draft in (140, None))
    assert 0 < np.abs(close - exact).max() <= 4
    png = io.BytesIO()
    Image.fromarray(x.astype(np.uint8)).save(png, "png")
    assert Decoder(draft=20).open(png.getvalue(), "x").size == (400, 300)
    with pytest.raises(ValueError, match="draft=224: expected an integer >= 256"):
        Decoder(size=224, draft=224)
