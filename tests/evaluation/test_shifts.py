"""Natural shifts: class lists, logits of their classes, labels in their order, the gap on the same classes."""
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image

from vmamba_jax import data, evaluation
from vmamba_jax.core import statistics
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.evaluation import shifts

IDENTIFIERS = [identifier for identifier, _ in imagenet.classes()]


@pytest.mark.parametrize(("shift", "total", "sha1"), [
    ("imagenet_a", 102178, "35699c0f8fba4f989e255fa45ef38f07b693594c"), ("imagenet_r", 86135, "19dac3e347f900c00c27fb4c60df81ae9aed7e8a")])
def test_lists(shift, total, sha1):
    chosen = shifts.columns(shift)
    assert len(set(chosen)) == 200 and list(chosen) == sorted(chosen) and sum(chosen) == total
    assert hashlib.sha1(",".join(map(str, chosen)).encode()).hexdigest() == sha1
    names = shifts.identifiers(shift)
    assert list(names) == sorted(names) and names[0] == IDENTIFIERS[chosen[0]]


def test_both_share_86_classes():
    assert len(set(shifts.columns("imagenet_a")) & set(shifts.columns("imagenet_r"))) == 86
    assert shifts.columns("imagenet_v2") == shifts.columns("imagenet_sketch") == tuple(range(1000))


def net(weights, images):
    return images.reshape(len(images), -1) @ weights


WEIGHTS = jax.random.normal(jax.random.key(0), (12, 1000))


def test_sliced():
    images = jax.random.uniform(jax.random.key(1), (3, 2, 2, 3))
    fn = shifts.sliced(Partial(net, WEIGHTS), "imagenet_r")
    np.testing.assert_array_equal(jax.jit(lambda fn, x: fn(x))(fn, images), net(WEIGHTS, images)[:, list(shifts.columns("imagenet_r"))])
    fn = Partial(net, WEIGHTS)
    assert shifts.sliced(fn, "imagenet_v2") is fn
    with pytest.raises(ValueError, match="expected .b, 1000."):
        shifts.sliced(lambda x: jnp.zeros((len(x), 200)), "imagenet_a")(images)
    with pytest.raises(ValueError, match="shift='imagenet_b'"):
        shifts.sliced(fn, "imagenet_b")


def write(folder, names, per_class=2):
    rng = np.random.default_rng(len(names))
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(rng.integers(0, 256, (2, 2, 3), np.uint8)).save(folder / name / f"{i}.png")


def test_load(tmp_path):
    """ImageNet-A by identifier, V2 by number (whose sorted names are not in order), with or without the released folder's name."""
    chosen = [IDENTIFIERS[k] for k in (6, 11, 988)]
    write(tmp_path / "imagenet-a", chosen)
    (tmp_path / "imagenet-a" / "README.txt").write_text("released with it")
    for root in (tmp_path, tmp_path / "imagenet-a"):
        source = shifts.load("imagenet_a", root)
        assert source.labels.tolist() == [0, 0, 1, 1, 199, 199] and source.classes == shifts.identifiers("imagenet_a")
    write(tmp_path / "imagenetv2-matched-frequency-format-val", ["0", "2", "10", "999"])
    assert sorted(set(shifts.load("imagenet_v2", tmp_path, size=2).labels.tolist())) == [0, 2, 10, 999]
    (tmp_path / "list.txt").write_text(f"{chosen[2]}/1.png\n")
    part = shifts.load("imagenet_a", tmp_path, file_list=tmp_path / "list.txt")
    assert part.labels.tolist() == [199] and part.split == "test[list.txt: 1 of 6]"
    write(tmp_path / "imagenet-r", [IDENTIFIERS[0]])
    with pytest.raises(ValueError, match="n01440764"):   # tench is not among them
        shifts.load("imagenet_r", tmp_path)


@pytest.fixture(scope="module")
def sources():
    """Six images of ImageNet-A's classes 0 and 1, and a validation set of four classes, of which class 7 is not in ImageNet-A."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 2, 2, 3), np.uint8)
    labels = np.asarray(net(WEIGHTS, images / np.float32(255)).argmax(1))
    shifted = data.Arrays(images[:6], [0, 0, 0, 1, 1, 1], shifts.identifiers("imagenet_a"), name="a", split="test")
    wide = np.where(np.arange(40) % 2, 7, np.where(np.arange(40) % 4, 11, 6))
    return shifted, data.Arrays(images, wide, IDENTIFIERS, name="imagenet", split="validation"), labels


def test_relabeled(sources):
    _, validation, _ = sources
    part = shifts.relabeled(validation, "imagenet_a")
    assert len(part) == 20 and part.labels.tolist() == [0, 1] * 10 and part.classes == shifts.identifiers("imagenet_a")
    images, labels = part.gather([1, 2])
    np.testing.assert_array_equal(images, validation.gather([2, 4])[0])
    assert labels.tolist() == [1, 0]


def test_shift_accuracy(sources):
    shifted, validation, _ = sources
    row = evaluation.shifts.shift_accuracy(Partial(net, WEIGHTS), shifted, "imagenet_a", validation=validation, batch_size=8)
    part = shifts.relabeled(validation, "imagenet_a")
    columns = list(shifts.columns("imagenet_a"))
    accuracy = {}
    for name, source in (("", shifted), ("validation_", part)):
        images, labels = source.gather(np.arange(len(source)))
        accuracy[name] = (np.asarray(net(WEIGHTS, images / np.float32(255)))[:, columns].argmax(1) == labels).mean()
        assert row[f"{name}accuracy"] == accuracy[name] and row[f"{name}fingerprint"] == source.fingerprint
    assert row["gap"] == accuracy["validation_"] - accuracy[""] and row["gap_interval"][0] <= row["gap"] <= row["gap_interval"][1]
    assert (row["shift"], row["classes"], row["examples"], row["validation_examples"]) == ("imagenet_a", 200, 6, 20)
    assert row["validation_split"] == "validation[20 of 40]" and json.loads(json.dumps(row)) == row


def test_gap_is_validation_minus_shift():
    """A quarter of the shifted images and all validation images are classified correctly."""
    images = np.random.default_rng(1).integers(0, 256, (40, 2, 2, 3), np.uint8)
    columns = np.array(shifts.columns("imagenet_a"))
    predicted = np.asarray(net(WEIGHTS, images / np.float32(255)))[:, columns].argmax(1)
    labels = np.where(np.arange(20) < 5, predicted[:20], (predicted[:20] + 1) % 200)
    shifted = data.Arrays(images[:20], labels, shifts.identifiers("imagenet_a"))
    validation = data.Arrays(images[20:], columns[predicted[20:]], IDENTIFIERS)
    row = shifts.shift_accuracy(Partial(net, WEIGHTS), shifted, "imagenet_a", validation=validation)
    assert (row["accuracy"], row["validation_accuracy"], row["gap"]) == (0.25, 1, 0.75)
    assert row["gap_interval"] == statistics.gap_interval(20, 20, 5, 20)
