"""Dense sets: the rendered shapes, ADE20K's folders, COCO's instances and panoptic segments, and annotations that errors name."""
import json

import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data
from vmamba_jax.data import annotations
from vmamba_jax.data.datasets import dense_shapes

SMALL = dict(size=32, examples=(6, 2, 2))


@pytest.fixture(scope="module")
def shapes():
    return data.load("dense_shapes", "train", seed=1, **SMALL)


def test_shapes(shapes):
    assert shapes.classes == ("background", "disk", "box", "triangle") and shapes.has_instances and shapes.instance_classes == dense_shapes.SHAPES
    for i in range(len(shapes)):
        found = shapes.example(i)
        assert not (found["masks"].sum(0) > 1).any()                                     # what is hidden is in no mask
        wanted = np.zeros((32, 32), int)
        for mask, k in zip(found["masks"], found["classes"], strict=True):
            wanted[mask] = k + 1
        np.testing.assert_array_equal(found["label"], wanted)
        for (x1, y1, x2, y2), mask in zip(found["boxes"].astype(int), found["masks"], strict=True):
            assert mask[y1:y2, x1:x2].sum() == mask.sum() and mask[y1].any() and mask[y2 - 1].any() and mask[:, x1].any() and mask[:, x2 - 1].any()
        assert ((shapes.occlusion[i] >= 0) & (shapes.occlusion[i] <= 1 - dense_shapes.LEAST)).all()
    assert np.concatenate(shapes.occlusion).max() > 0
    again, other = (data.load("dense_shapes", "train", seed=seed, **SMALL) for seed in (1, 2))
    assert again.fingerprint == shapes.fingerprint != other.fingerprint
    part = data.subset(shapes, [3, 1])
    np.testing.assert_array_equal(part.gather([0])[1][0], shapes.example(3)["label"])
    assert part.example(1)["boxes"] is shapes.example(1)["boxes"] and part.fingerprint != shapes.fingerprint
    with pytest.raises(TypeError, match="dense set has label maps"):
        _ = shapes.labels


def test_coco_reads_what_shapes_write(shapes, tmp_path):
    """Run lengths, and the same masks as the compressed string and as panoptic colors."""
    shapes.write(tmp_path)
    place = dict(images="images", annotations="instances.json")
    for change in (lambda rle: rle, lambda rle: rle | {"counts": compressed(rle["counts"])}):
        content = json.loads((tmp_path / "instances.json").read_text())
        for each in content["annotations"]:
            each["segmentation"] = change(each["segmentation"])
        (tmp_path / "instances.json").write_text(json.dumps(content))
        source = data.load("coco", "train", tmp_path, **place)
        assert source.classes == dense_shapes.SHAPES
        for i in range(len(shapes)):
            found, wanted = source.example(i), shapes.example(i)
            for name in ("image", "boxes", "classes", "masks", "crowd"):
                np.testing.assert_array_equal(found[name], wanted[name])
            np.testing.assert_array_equal(found["label"], np.where(wanted["label"] == 0, 255, wanted["label"] - 1))
    panoptic = {"images": content["images"], "annotations": [], "categories": [{"id": 9, "name": "ground", "isthing": 0}, *content["categories"]]}
    (tmp_path / "segments").mkdir()
    for i in range(len(shapes)):
        found = shapes.example(i)
        numbers, info = np.full((32, 32), 70_000), [{"id": 70_000, "category_id": 9}]
        for j, (mask, k) in enumerate(zip(found["masks"], found["classes"].tolist(), strict=True)):
            numbers[mask] = 300 + j
            info.append({"id": 300 + j, "category_id": k + 1})
        Image.fromarray(np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)).save(tmp_path / "segments" / f"{i}.png")
        panoptic["annotations"].append({"image_id": i + 1, "file_name": f"{i}.png", "segments_info": info})
    write(tmp_path, "panoptic.json", panoptic)
    source = data.load("coco", "train", tmp_path, kind="panoptic", images="images", annotations="panoptic.json", segments="segments")
    assert source.classes == (*dense_shapes.SHAPES, "ground") and source.instance_classes == dense_shapes.SHAPES
    found, wanted = source.example(2), shapes.example(2)
    for name in ("boxes", "classes", "masks"):
        np.testing.assert_array_equal(found[name], wanted[name])
    np.testing.assert_array_equal(found["label"], np.where(wanted["label"] == 0, 3, wanted["label"] - 1))
    panoptic["annotations"][2]["segments_info"].pop()
    write(tmp_path, "panoptic.json", panoptic)
    source = data.load("coco", "train", tmp_path, kind="panoptic", images="images", annotations="panoptic.json", segments="segments")
    with pytest.raises(ValueError, match=r"segments/2.png: segment 30\d: expected one that .*panoptic.json lists for 000002.png"):
        source.example(2)


def compressed(runs):
    """COCO's string of run lengths, by its definition."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + (bits | (0 if done else 32)))
            if done:
                break
    return text


def write(folder, name, content):
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def instances(**changes):
    annotation = {"id": 4, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 3], "iscrowd": 0, "segmentation": [[1, 2, 3, 2, 3, 4]]} | changes
    return {"images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}], "categories": [{"id": 7, "name": "cat"}], "annotations": [annotation]}


@pytest.mark.parametrize("changes,message", [
    ({"bbox": [1, 2, 9, 3]}, r"annotation 4: \"bbox\" \[1, 2, 9, 3\]: expected a box inside a.png, 8 x 6 pixels"),
    ({"bbox": [-3, 2, 3, 3]}, "expected a box inside a.png"),
    ({"bbox": [1, 2, 0, 3]}, "expected a width and a height above 0"),
    ({"bbox": [1, 2, float("nan"), 3]}, "expected 4 finite numbers"),
    ({"category_id": 8}, "\"category_id\" 8: expected one of the 1 categories"),
    ({"image_id": 2}, "\"image_id\" 2: expected one of the images"),
    ({"iscrowd": 3}, "\"iscrowd\" 3: expected 0 or 1"),
    ({"segmentation": []}, "expected polygons or run lengths"),
    ({"segmentation": {"counts": [48], "size": [8, 6]}}, r"run lengths of \"size\" \[8, 6\]: expected \[6, 8\]"),
    ({"bbox": None}, "annotation 4: \"bbox\" None"),
])
def test_inconsistent_annotations(tmp_path, changes, message):
    path = write(tmp_path, "a.json", instances(**changes))
    with pytest.raises(ValueError, match=message) as error:
        annotations.read_instances(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("segmentation,message", [
    ({"counts": [40, 7], "size": [6, 8]}, "run lengths with the sum 47: expected 48, the pixels of 8 x 6"),
    ({"counts": [49, -1], "size": [6, 8]}, "expected run lengths from 0 to 48"),
    ({"counts": "0", "size": [6, 8]}, "run lengths with the sum 0"), ({"counts": "P", "size": [6, 8]}, "expected complete compressed"),
    ({"counts": "\u00e9", "size": [6, 8]}, "expected the characters"), ([[1, 2, 3]], "polygon .1, 2, 3.: expected x and y of 3"), ([[1, 2, 3, "x", 5, 6]], "finite"),
    ({"counts": [48], "size": [6, 8]}, "a mask without any pixel"),
])
def test_masks_that_do_not_fit(tmp_path, segmentation, message):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    write(tmp_path, "a.json", instances(segmentation=segmentation))
    source = data.load("coco", "validation", tmp_path, images="images", annotations="a.json")
    with pytest.raises(ValueError, match=f"a.json: annotation 4: .*{message}"):
        source.example(0)


def test_degenerate_boxes_and_polygons(tmp_path):
    content = instances(bbox=[1, 2, 0, 3])
    content["annotations"].append(instances(id=5, segmentation=[[1, 1, 4, 1, 4, 3, 1, 3]])["annotations"][0])
    found = annotations.read_instances(write(tmp_path, "a.json", content), degenerate="drop")
    assert len(found.dropped) == 1 and "annotation 4" in found.dropped[0] and [each["id"] for each in found.images[0].annotations] == [5]
    mask = annotations.segment_mask("here", found.images[0].annotations[0]["segmentation"], 6, 8)
    assert mask[1:4, 1:5].all() and mask.sum() == 12


def test_smaller_instances_are_in_front_of_larger_ones(tmp_path):
    """Whatever their order in the file; crowd regions are behind all."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    square = lambda x1, y1, x2, y2: [[x1, y1, x2, y1, x2, y2, x1, y2]]
    content = instances(bbox=[2, 1, 3, 3], segmentation=square(2, 1, 4, 3), category_id=7)
    content["categories"] += [{"id": 8, "name": "dog"}, {"id": 9, "name": "herd"}]
    large = {"id": 5, "category_id": 8, "bbox": [1, 0, 6, 6], "segmentation": square(1, 0, 6, 5)}
    crowd = {"id": 6, "category_id": 9, "iscrowd": 1, "bbox": [2, 2, 1, 1], "segmentation": square(2, 2, 2, 2)}
    content["annotations"] += [instances(**large)["annotations"][0], instances(**crowd)["annotations"][0]]
    write(tmp_path, "a.json", content)
    found = data.load("coco", "train", tmp_path, images="images", annotations="a.json").example(0)
    wanted = np.full((6, 8), 255)
    wanted[0:6, 1:7], wanted[1:4, 2:5] = 1, 0
    np.testing.assert_array_equal(found["label"], wanted)
    assert found["crowd"].tolist() == [False, False, True]


@pytest.fixture
def ade(tmp_path):
    rng = np.random.default_rng(0)
    labels = {"a": rng.integers(0, 151, (20, 30)), "b": rng.integers(0, 151, (16, 16))}
    for kind in ("images", "annotations"):
        (tmp_path / "ADEChallengeData2016" / kind / "training").mkdir(parents=True)
    for name, label in labels.items():
        Image.fromarray(rng.integers(0, 256, (*label.shape, 3)).astype(np.uint8)).save(tmp_path / "ADEChallengeData2016" / "images" / "training" / f"{name}.jpg")
        Image.fromarray(label.astype(np.uint8)).save(tmp_path / "ADEChallengeData2016" / "annotations" / "training" / f"{name}.png")
    return tmp_path, labels


def test_ade20k(ade):
    root, labels = ade
    source = data.load("ade20k", "train", root)
    assert len(source) == 2 and source.classes[149] == "150" and source.example(0)["image"].shape == (20, 30, 3)
    np.testing.assert_array_equal(source.example(0)["label"], np.where(labels["a"] == 0, 255, labels["a"] - 1))
    np.testing.assert_array_equal(data.load("ade20k", "train", root, zero_is_ignored=False, classes=map(str, range(151))).example(1)["label"], labels["b"])
    names = "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *(f"{k + 1}\t0\t0\t0\t0\tn{k}, other" for k in range(150))])
    (root / "ADEChallengeData2016" / "objectInfo150.txt").write_text(names)
    sized = data.load("ade20k", "train", root, size=16)
    assert sized.classes[:2] == ("n0", "n1") and sized.gather([0, 1])[1].shape == (2, 16, 16) and sized.fingerprint != source.fingerprint
    with pytest.raises(ValueError, match="differ in shape"):
        source.gather([0, 1])


@pytest.mark.parametrize("array,message", [
    (np.full((20, 30), 151, np.uint8), "a.png: label 151 at row 0, column 0: expected 0 to 150, or 255"),
    (np.zeros((20, 31), np.uint8), "a.png: a label map of 31 x 20 pixels: expected 30 x 20"),
    (np.zeros((20, 30, 3), np.uint8), "a.png: expected a label map as a gray PNG file"), (None, "a.png: expected a label map"),
])
def test_wrong_label_maps(ade, array, message):
    path = ade[0] / "ADEChallengeData2016" / "annotations" / "training" / "a.png"
    path.write_bytes(b"no image") if array is None else Image.fromarray(array).save(path)
    with pytest.raises(ValueError, match=message):
        data.load("ade20k", "train", ade[0]).example(0)
    path.unlink()
    with pytest.raises(data.DataNotFoundError, match="a.png: expected a label map for each image"):
        data.load("ade20k", "train", ade[0])


def test_absent_sets(tmp_path):
    for name, message in (("ade20k", "expected the folder images/validation"), ("coco", "val2017 is absent")):
        with pytest.raises(data.DataNotFoundError, match=message):
            data.load(name, "test", tmp_path)


def test_labels_of_arrays():
    images = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"labels\[0, 1, 2\]=2: expected a class from 0 to 1, or 255"):
        labels = np.zeros((1, 4, 4), int)
        labels[0, 1, 2] = 2
        data.DenseArrays(images, labels, ("a", "b"))
