"""Joint transforms: image, label map, boxes and masks stay together; the recipes' crop with a category limit; padded batches."""
import numpy as np
import pytest

from vmamba_jax import data
from vmamba_jax.data.decoding.images import BadImageError
from vmamba_jax.data.transforms import joint


@pytest.fixture(scope="module")
def shapes():
    return data.load("dense_shapes", "train", size=40, examples=(8, 1, 1))


def rng(seed=0):
    return np.random.default_rng(seed)


def bright(masks):
    """An example whose image shows its masks, so that it can be compared with them after a transform."""
    label = np.full(masks.shape[1:], 0, np.int32)
    for i, mask in enumerate(masks):
        label[mask] = i + 1
    return {"image": np.repeat((label * 60).astype(np.uint8)[..., None], 3, -1), "label": label, "masks": masks, "boxes": boxes(masks),
            "classes": np.arange(len(masks)), "crowd": np.zeros(len(masks), bool)}


def boxes(masks):
    rows, columns = ([np.flatnonzero(mask.any(axis)) for mask in masks] for axis in (1, 0))
    return np.array([[c[0], r[0], c[-1] + 1, r[-1] + 1] for r, c in zip(rows, columns, strict=True)], np.float32)


@pytest.fixture
def example():
    masks = np.zeros((2, 24, 32), bool)
    masks[0, 4:12, 4:16], masks[1, 10:20, 20:28] = True, True
    return bright(masks)


@pytest.mark.parametrize("transform,exact", [
    (joint.Flip(1.0), True), (joint.Crop((14, 20), 1.0), True), (joint.Pad((30, 40)), True), (joint.Pad(divisor=16), True), (joint.Resize(64, 48), True),
    (joint.Resize(48, 36, (0.5, 2.0)), False), (joint.create("segmentation", size=16, scale=(64, 32), photometric=False), False),
    (joint.create("detection_crop", size=80, long=64, shorts=(40, 48), first=(30, 40), crop=(20, 30)), False)])
def test_all_stay_together(example, transform, exact):
    for seed in range(5):
        found = transform(example, rng(seed))
        shown = np.where(found["label"] == 255, 0, found["label"])
        assert found["image"].shape[:2] == found["label"].shape == found["masks"].shape[1:]
        agree = np.abs(found["image"][..., 0] - 60.0 * shown) < 1                     # off the edges, which the bilinear resize blurs
        assert agree.mean() > (0.99 if isinstance(transform, (joint.Flip, joint.Crop, joint.Pad)) else 0.6)
        for mask, k in zip(found["masks"], found["classes"], strict=True):
            np.testing.assert_array_equal(mask, found["label"] == k + 1)
        if exact and len(found["masks"]):
            np.testing.assert_allclose(found["boxes"], boxes(found["masks"]))
        assert len(found["boxes"]) == len(found["masks"]) == len(found["classes"]) == len(found["crowd"])
        again = transform(example, rng(seed))
        np.testing.assert_array_equal(again["image"], found["image"])


def test_sizes_of_the_recipe(example):
    """Long and short side of (2048, 512) times the ratio, in proportion, rounded half up as mmcv does."""
    assert joint.Resize(64, 16)(example, rng())["label"].shape == (16, 21)
    assert joint.Resize(20, 16)(example, rng())["label"].shape == (15, 20)            # the long side binds
    drawn = {joint.Resize(200, (24, 48))(example, rng(seed))["label"].shape for seed in range(8)}
    assert drawn == {(24, 32), (48, 64)}
    np.testing.assert_array_equal(joint.Resize(64, 48)(example, rng())["label"], np.repeat(np.repeat(example["label"], 2, 0), 2, 1))


def test_crop_limits_one_category():
    """A crop is drawn again while one category has 75 % of the pixels that count; ignored ones do not."""
    label = np.zeros((8, 200), np.int32)
    label[:, 100:] = 1
    example = {"image": np.zeros((8, 200, 3), np.uint8), "label": label}
    share = lambda found: np.bincount(found["label"].ravel()).max() / found["label"].size
    free = [share(joint.Crop((8, 20), 1.0)(example, rng(i))) for i in range(60)]
    limited = [share(joint.Crop((8, 20), 0.75)(example, rng(i))) for i in range(60)]
    assert np.mean([x < 0.75 for x in free]) < 0.2 and np.mean([x < 0.75 for x in limited]) > 0.35
    label[:, 100:] = 255
    assert not joint.Crop((8, 20), 0.75)._mixed(label)


def test_photometric():
    image = rng().integers(0, 256, (12, 12, 3)).astype(np.uint8)
    example = {"image": image, "label": np.zeros((12, 12), np.int32)}
    found = [joint.Photometric()(example, rng(i))["image"] for i in range(20)]
    assert len({x.tobytes() for x in found}) > 10 and any((x == image).all() for x in found)
    gray = np.repeat(image[..., :1], 3, -1)                                           # which saturation and hue do not change
    shifted = [joint.Photometric(32, (1, 1), (0.5, 1.5), 18)({"image": gray}, rng(i))["image"].astype(int) - gray for i in range(20)]
    assert 20 < max(abs(x).max() for x in shifted) <= 32 and min(abs(x).max() for x in shifted) == 0
    with pytest.raises(BadImageError, match="1 channels"):
        joint.Photometric()({"image": image[..., :1], "label": example["label"]}, rng())


def test_padded_batches(shapes):
    pipeline = data.DensePipeline(shapes, 4, seed=3, instances=6, transform=joint.create("segmentation", size=32, scale=(64, 40)), threads=1)
    batch = pipeline[2]
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        "image": ((4, 32, 32, 3), np.float32), "label": ((4, 32, 32), np.int32), "index": ((4,), np.int64), "boxes": ((4, 6, 4), np.float32),
        "classes": ((4, 6), np.int32), "masks": ((4, 6, 32, 32), bool), "valid": ((4, 6), bool),
        "size": ((4, 2), np.int32)}
    assert (batch["masks"].any((2, 3)) == batch["valid"]).all() and batch["valid"].any()
    for label, masks, classes, valid in zip(batch["label"], batch["masks"], batch["classes"], batch["valid"], strict=True):
        for mask, k in zip(masks[valid], classes[valid], strict=True):
            np.testing.assert_array_equal(label[mask], k + 1)
    again = data.DensePipeline(shapes, 4, seed=3, instances=6, transform=joint.create("segmentation", size=32, scale=(64, 40)), threads=2)[2]
    assert all((again[name] == batch[name]).all() for name in batch)
    plain = data.DensePipeline(shapes, 4, seed=3)[2]
    np.testing.assert_array_equal(plain["label"], data.Batches(shapes, 4, seed=3)[2]["label"])
    most = max(len(shapes.example(i)["boxes"]) for i in range(8))
    with pytest.raises(ValueError, match=rf"instances={most - 1}: expected at least {most}, as image \d of"):
        [data.DensePipeline(shapes, 8, instances=most - 1, threads=1)[t] for t in range(1)]
    with pytest.raises(ValueError, match="instances=2 with .*: expected 0, as the set has none"):
        data.DensePipeline(data.DenseArrays(shapes.images, shapes.label_maps, shapes.classes), 4, instances=2)


@pytest.mark.parametrize("make,message", [
    (lambda: joint.Crop((1, 2, 3)), "size=.1, 2, 3.: expected one number or a pair"), (lambda: joint.Crop(4, 0), "most=0"),
    (lambda: joint.Resize(4, 4, (2, 1)), "expected an ascending pair"), (lambda: joint.create("x"), "expected one of 'segmentation'"),
])
def test_errors(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_larger_image_is_not_cut(example):
    with pytest.raises(BadImageError, match="24 x 32 pixels: expected at most 16 x 40"):
        joint.Pad((16, 40))(example, rng())
