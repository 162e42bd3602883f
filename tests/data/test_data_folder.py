"""Image folders: layout, class order, decoding, resizing, and what happens with files that are no images."""
import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data
from vmamba_jax.data.decoding.images import Decoder, as_array, center_crop


def picture(h=6, w=9, seed=0, mode="RGB"):
    x = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    return Image.fromarray(x).convert(mode)


def write_folder(root, names=("b", "a", "c"), per_class=2, end=".png"):
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            picture(seed=10 * k + i).save(root / name / f"{i}{end}")


@pytest.mark.parametrize("split, name", [("train", "train"), ("validation", "val"), ("validation", "validation"), ("validation", "valid"),
                                         ("test", "test")])
def test_layout(tmp_path, split, name):
    write_folder(tmp_path / name)
    (tmp_path / name / "a" / "notes.txt").write_text("no image")
    (tmp_path / name / "a" / "._0.png").write_text("no image")
    (tmp_path / name / ".cache").mkdir()
    (tmp_path / name / "a" / "deeper").mkdir()
    picture(seed=99).save(tmp_path / name / "a" / "deeper" / "x.PNG")
    source = data.load("folder", split, tmp_path)
    assert source.classes == ("a", "b", "c") and source.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert source.files[:4] == ["a/0.png", "a/1.png", "a/deeper/x.PNG", "b/0.png"] and source.image_shape is None
    image, label = source[3]
    assert (image == np.asarray(picture(seed=0))).all() and label == 1
    images, labels = source.gather([6, 0])
    assert (images[0] == np.asarray(picture(seed=21))).all() and labels.tolist() == [2, 0]
    assert not hasattr(source, "images")


def test_classes_pin_the_labels(tmp_path):
    write_folder(tmp_path)
    source = data.load("folder", "test", tmp_path, subdir=".", classes=["z", "c", "b", "a"], workers=1)
    assert source.labels.tolist() == [1, 1, 2, 2, 3, 3] and source.classes == ("z", "c", "b", "a")
    for classes, message in ((["a", "b"], "names of all folders of .*missing c"), (["a", "b", "c", "a"], "expected each name once")):
        with pytest.raises(ValueError, match=message):
            data.load("folder", "test", tmp_path, subdir=".", classes=classes)


def test_absent_or_empty(tmp_path):
    with pytest.raises(data.DataNotFoundError, match="expected a folder 'validation' or 'val' or 'valid'.*<class>/<image>"):
        data.load("folder", "validation", tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(data.DataNotFoundError, match="expected class folders"):
        data.load("folder", "train", tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match="cat': expected files that end in .*got no images"):
        data.load("folder", "train", tmp_path)


@pytest.mark.parametrize("name, damage", [
    ("0.png", lambda raw: raw[:len(raw) // 2]), ("0.png", lambda raw: b"text"), ("0.jpg", lambda raw: raw[:99]), ("0.jpg", lambda raw: b""),
])
def test_undecodable_file(tmp_path, name, damage):
    write_folder(tmp_path / "train", end=name[1:])
    path = tmp_path / "train" / "b" / name
    path.write_bytes(damage(path.read_bytes()))
    source = data.load("folder", "train", tmp_path, workers=2)
    assert source[0][1] == 0
    with pytest.raises(ValueError, match="expected an image file") as caught:
        source.gather(np.arange(len(source)))
    assert str(path) in str(caught.value)


def test_mixed_sizes_need_a_size(tmp_path):
    write_folder(tmp_path / "train")
    picture(20, 12).save(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(ValueError, match=r"differ in shape .*size=N"):
        data.load("folder", "train", tmp_path).gather([0, 1])
    source = data.load("folder", "train", tmp_path, size=4, channels=1)
    images, _ = source.gather([0, 1, 2])
    assert images.shape == (3, 4, 4, 1) and source.image_shape == (4, 4, 1)


def test_fingerprint_of_a_folder(tmp_path):
    write_folder(tmp_path / "train")
    prints = [data.load("folder", "train", tmp_path, size=size).fingerprint for size in (None, None, 4)]
    picture(30, 30).save(tmp_path / "train" / "a" / "0.png")
    prints.append(data.load("folder", "train", tmp_path).fingerprint)
    assert prints[0] == prints[1] and len(set(prints)) == 3


def encoded(image, kind="png", **options):
    import io
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("h, w", [(40, 30), (30, 40), (33, 33)])
def test_center_crop(h, w):
    x = np.add.outer(np.arange(h), np.arange(w))[..., None].repeat(3, 2).astype(np.uint8) * 3  # a ramp: its center is invariant to resizing
    y = Decoder(size=14, resize=16)(encoded(Image.fromarray(x)), "x").astype(float)
    assert y.shape == (14, 14, 3)
    step = 3 * min(h, w) / 16
    assert abs(y.mean() - x.mean()) < 0.55 * step  # half a pixel where the margins cannot be equal
    assert np.diff(y[..., 0], axis=0).mean() == pytest.approx(step, rel=0.05)


def test_default_resize_is_imagenets():
    image = picture(300, 500)
    scaled = image.resize((426, 256), Image.Resampling.BICUBIC).crop((101, 16, 325, 240))
    assert (Decoder(size=224)(encoded(image), "x") == np.asarray(scaled)).all()
    assert (Decoder(size=300, resize=300)(encoded(image), "x") == np.asarray(image.crop((100, 0, 400, 300)))).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA"])
def test_modes_become_rgb(mode):
    image = picture(mode=mode)
    x = Decoder()(encoded(image, "tiff"), "x")
    assert x.shape == (6, 9, 3) and x.dtype == np.uint8
    if mode in ("L", "1"):
        assert (x == np.asarray(image.convert("L"))[..., None]).all()
    assert Decoder(channels=1)(encoded(image, "tiff"), "x").shape == (6, 9, 1)


def test_center_crop_rounds_to_even():
    """Margins of 1.5 and 0.5 pixels become 2 and 0, as in torchvision."""
    photo = picture(5, 7)
    assert np.array_equal(as_array(center_crop(photo, 4)), np.asarray(photo)[0:4, 2:6])


def test_sixteen_bit_gray_is_scaled():
    x = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert Decoder(channels=1)(encoded(Image.fromarray(x)), "x")[0, :, 0].tolist() == [0, 1, 128, 255]
    with pytest.raises(ValueError, match="floating-point"):
        Decoder()(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "tiff"), "x")


def test_exif_orientation():
    image, exif = picture(), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to show
    raw = encoded(image, exif=exif)
    assert (Decoder()(raw, "x") == np.rot90(np.asarray(image), 3)).all()
    assert (Decoder(exif=False)(raw, "x") == np.asarray(image)).all()


@pytest.mark.parametrize("options, error, message", [
    ({"size": 0}, ValueError, "size"), ({"size": 4.0}, TypeError, "size"), ({"resize": 8}, ValueError, "resize=8 with size=None: expected size"),
    ({"size": 8, "resize": 7}, ValueError, "resize=7: expected an integer >= 8"), ({"interpolation": "area"}, ValueError, "'area'"),
    ({"channels": 4}, ValueError, "channels"), ({"workers": 0}, ValueError, "workers"), ({"sizes": 3}, TypeError, "sizes=3: expected an option"),
])
def test_bad_options(tmp_path, options, error, message):
    write_folder(tmp_path / "train")
    with pytest.raises(error, match=message):
        data.load("folder", "train", tmp_path, **options)


SHARES = {"validation": 0.25, "test": 0.25}


@pytest.mark.parametrize("inside", ["", "train"])
def test_absent_splits_are_drawn_from_the_training_images(tmp_path, inside):
    """From ROOT/train or from class folders alone: disjoint, every class in each, all images used, the same at every call."""
    write_folder(tmp_path / "photos" / inside, per_class=8)
    load = lambda split, **options: data.load("folder", split, tmp_path / "photos", **{**SHARES, **options})
    parts = {split: load(split) for split in ("train", "validation", "test")}
    files = [name for part in parts.values() for name in part.files]
    assert len(files) == len(set(files)) == 24 and {name: len(part) for name, part in parts.items()} == {"train": 12, "validation": 6, "test": 6}
    assert all(np.bincount(part.labels).tolist() == [len(part) // 3] * 3 and part.classes == ("a", "b", "c") for part in parts.values())
    assert parts["test"].files == load("test").files and {part.name for part in parts.values()} == {"photos"}
    assert len(load("train", test=0)) == 18 and len(load("validation", validation=4)) == 4
    assert [len(load(split, subdir=inside or ".")) for split in parts] == [12, 6, 6]
    assert all(data.folder.is_drawn(split, tmp_path / "photos", **SHARES) for split in parts)


def test_a_split_with_a_folder_of_its_own_is_not_drawn(tmp_path):
    write_folder(tmp_path / "train", per_class=8)
    write_folder(tmp_path / "val", per_class=1)
    load = lambda split: data.load("folder", split, tmp_path, **SHARES)
    assert [len(load(split)) for split in ("train", "validation", "test")] == [18, 3, 6]
    assert [data.folder.is_drawn(split, tmp_path, **SHARES) for split in ("train", "validation", "test")] == [True, False, True]
    write_folder(tmp_path / "test", per_class=1)
    assert [len(load(split)) for split in ("train", "validation", "test")] == [24, 3, 3]
    for options in ({}, {"validation": 0, "test": 0.0}):
        assert len(data.load("folder", "train", tmp_path, **options)) == 24


def test_draws_that_leave_no_training_images(tmp_path):
    write_folder(tmp_path / "train", per_class=2)
    picture().save(tmp_path / "train" / "c" / "0.png")
    for options, message in (({"validation": 6}, "validation=6: expected to leave training images, got 6 images in"),
                             ({"validation": 0.6, "test": 0.4}, "validation=0.6, test=0.4: expected to leave training images, got 6"),
                             ({"validation": 1.0}, "validation=1.0: expected a finite number >= 0 and < 1"),
                             ({"test": -1}, "test=-1: expected an integer >= 0"), ({"test": True}, "test=True: expected an integer")):
        with pytest.raises((ValueError, TypeError), match=message):
            data.load("folder", "train", tmp_path, **options)
    with pytest.raises(ValueError, match=r"validation=4: expected to leave training images of every class, got none of '\w', which has 2 of the 6"):
        data.load("folder", "train", tmp_path, validation=4)
    with pytest.raises(data.DataNotFoundError, match="expected a folder 'train'"):
        data.load("folder", "train", tmp_path / "train", validation=0)
