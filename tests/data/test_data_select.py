"""Parts of a set: its classes renumbered, the files a list names."""
import json

import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data
from vmamba_jax.data.datasets import imagenet


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate("abc"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((2, 2, 3), 10 * k + i, np.uint8)).save(tmp_path / "val" / name / f"{name}{i}.png")
    return data.load("folder", "validation", tmp_path)


def test_classes(folder):
    part = data.select_classes(folder, ["c", "a"])
    assert part.classes == ("c", "a") and part.labels.tolist() == [1, 1, 1, 0, 0, 0] and len(part) == 6
    images, labels = part.gather([0, 5])
    assert images[:, 0, 0, 0].tolist() == [0, 22] and labels.tolist() == [1, 0]
    assert part.picture(4)[1] == 0 and part[4][1] == 0
    assert part.fingerprint != data.select_classes(folder, ["a", "c"]).fingerprint == data.select_classes(folder, ["a", "c"]).fingerprint
    assert data.subset(part, [5, 0]).labels.tolist() == [0, 1]
    for classes, text in ((["a", "d"], "classes=d: expected classes of"), (["a", "a"], "expected each name once")):
        with pytest.raises(ValueError, match=text):
            data.select_classes(folder, classes)
    with pytest.raises(TypeError, match="data.Source"):
        data.select_classes((1, 2), ["a"])


@pytest.mark.parametrize(("name", "text"), [
    ("ids.txt", "val/c/c1.png\n\nval/a/a0.png\n"), ("list.json", json.dumps({"images": ["c/c1.png", "a/a0.png"]})),
    ("plain.json", json.dumps(["x\\c\\c1.png", "a/a0.png"]))])
def test_list(folder, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    part = data.subset_from_list(folder, tmp_path / name)
    assert part.labels.tolist() == [2, 0] and part.gather([0, 1])[0][:, 0, 0, 0].tolist() == [21, 0]
    assert part.split == f"validation[{name}: 2 of 9]" and part.classes == folder.classes


@pytest.mark.parametrize(("text", "message"), [("a/a0.png\na/a0.png", "expected each name once, got a/a0.png twice"), ("a/a9.png", "lacks 1 of 1 files: a/a9.png"),
                                                 ("", "expected names")])
def test_wrong_list(folder, tmp_path, text, message):
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        data.subset_from_list(folder, tmp_path / "ids.txt")


def test_sources_without_files():
    with pytest.raises(ValueError, match="source=.*: expected a source of files"):
        data.subset_from_list(data.Arrays(np.zeros((2, 2, 2, 3), np.uint8), [0, 1], ("a", "b")), "ids.txt")


def test_match_classes():
    """A split that lacks a class is numbered by the names of another one."""
    images = np.zeros((4, 2, 2, 3), np.uint8)
    part = data.Arrays(images, [0, 1, 1, 0], ("banana", "cherry"))
    matched = data.match_classes(part, ("apple", "banana", "cherry"))
    assert matched.labels.tolist() == [1, 2, 2, 1] == matched.gather(np.arange(4))[1].tolist() and matched.classes == ("apple", "banana", "cherry")
    assert matched.fingerprint != part.fingerprint and data.match_classes(part, part.classes) is part
    numbers = data.Arrays(images, [0, 1, 1, 0])  # without names
    assert data.match_classes(numbers, ("apple", "banana", "cherry")) is numbers
    with pytest.raises(ValueError, match="classes=cherry of .*expected some of the 2 classes apple, banana"):
        data.match_classes(part, ("apple", "banana"))
    with pytest.raises(ValueError, match="classes=0, 1 of .*expected some of the 1 classes apple"):
        data.match_classes(numbers, ("apple",))


def test_mixed_sets_number_their_classes_alike():
    images = np.zeros((4, 2, 2, 3), np.uint8)
    real, extra = data.Arrays(images, [0, 1, 2, 0], ("a", "b", "c")), data.Arrays(images, [0, 1, 1, 0], ("b", "c"))
    with pytest.raises(ValueError, match="extra with class 0 'b': expected 'a'"):
        data.Mixed(real, extra, 0.5)
    assert data.Mixed(real, data.match_classes(extra, real.classes), 0.5).labels.tolist() == [0, 1, 2, 0, 1, 2, 2, 1]
    assert data.Mixed(real, data.Arrays(images, [0, 1, 1, 0]), 0.5).labels.tolist()[4:] == [0, 1, 1, 0]


def test_labels_of_imagenet():
    assert imagenet.labels_of(("n03445777", "n01440764")) == (574, 0) and imagenet.labels_of(("7", "10")) == (7, 10)
    for names in (("tench",), ("n01440764", "3"), ("1000",)):
        with pytest.raises(ValueError, match="expected WordNet identifiers"):
            imagenet.labels_of(names)
