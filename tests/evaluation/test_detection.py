"""COCO's average precision against pycocotools' recorded numbers, malformed annotations and detections, detections of a detector's outputs."""
import copy
import json
import pathlib
import sys

import hotcoco
import numpy as np
import pytest

from vmamba_jax import evaluation
from vmamba_jax.evaluation.detection import CocoAP, detections_of, run_lengths

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
MASK = np.array([[0, 1, 1], [0, 0, 1]], bool)


@pytest.fixture(scope="module")
def shapes():
    return json.loads((GOLDEN / "dense_coco_ap_shapes.json").read_text())


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_equals_pycocotools(shapes, kind, tmp_path, capfd):
    """Crowd regions, an empty image, equal scores, more than 100 detections, an absent class; from memory and from files."""
    found = evaluation.detection.coco_ap(shapes["gt"], shapes["detections"], kind)
    assert CocoAP._fields == tuple(shapes["stat_names"])
    assert list(found) == shapes["expected"][kind]["stats"]
    for name in ("gt", "detections"):
        (tmp_path / f"{name}.json").write_text(json.dumps(shapes[name]))
    assert evaluation.detection.coco_ap(tmp_path / "gt.json", tmp_path / "detections.json", kind) == found
    assert "".join(capfd.readouterr()) == ""


def one():
    """Annotations of one image and one object, and a detection equal to it."""
    truth = {"images": [{"id": 7, "height": 2, "width": 3}], "categories": [{"id": 4}],
             "annotations": [{"id": 1, "image_id": 7, "category_id": 4, "iscrowd": 0, "area": 3, "bbox": [1, 0, 2, 2], "segmentation": run_lengths(MASK)}]}
    return truth, [{"image_id": 7, "category_id": 4, "score": 0.5, "bbox": [1, 0, 2, 2], "segmentation": run_lengths(MASK)}]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_one_object(kind, capfd):
    truth, detections = one()
    found = evaluation.detection.coco_ap(truth, detections, kind)
    assert (found.AP, found.AP50, found.APs, found.APm, found.AR1) == pytest.approx((1, 1, 1, -1, 1))
    nothing = evaluation.detection.coco_ap(truth, [], kind)
    assert (nothing.AP, nothing.APm, nothing.AR100) == (0, -1, 0)
    assert set(evaluation.detection.coco_ap(truth | {"annotations": []}, detections, kind)) == {-1}
    assert "".join(capfd.readouterr()) == ""


def test_compressed_run_lengths():
    """COCO's text form gives the same numbers."""
    truth, detections = one()
    assert run_lengths(MASK) == {"size": [2, 3], "counts": [2, 1, 1, 2]}
    text = hotcoco.mask.encode(np.asfortranarray(MASK.astype(np.uint8)))["counts"]
    text = text.decode() if isinstance(text, bytes) else text
    detections[0]["segmentation"] = {"size": [2, 3], "counts": text}
    assert evaluation.detection.coco_ap(truth, detections, "segm").AP == pytest.approx(1)


TRUTH = [
    (("images", 0, "height"), 0, r"annotations: image 7: height and width \(0, 3\): expected"),
    (("images", 0, "id"), "7", "annotations: image .*: expected an id of its own"),
    (("annotations", 0, "image_id"), 8, "annotations: annotation 1: image_id=8: expected one of the 1 in the annotations"),
    (("annotations", 0, "category_id"), 5, "annotations: annotation 1: category_id=5: expected"),
    (("annotations", 0, "bbox"), [3, 0, 2, 2], r"annotation 1: bbox=\[3, 0, 2, 2\]: expected a part inside the image of 3 x 2 pixels"),
    (("annotations", 0, "bbox"), [1, 0, float("nan"), 2], "annotation 1: bbox=.*: expected finite"),
    (("annotations", 0, "bbox"), [1, 0, -2, 2], "annotation 1: bbox=.*the last two >= 0"),
    (("annotations", 0, "area"), None, "annotation 1: area=None: expected"),
    (("annotations", 0, "iscrowd"), 2, "annotation 1: iscrowd=2: expected 0 or 1"),
    (("annotations", 0, "segmentation", "size"), [3, 2], r"annotation 1: segmentation of size \[3, 2\]: expected \[2, 3\]"),
    (("annotations", 0, "segmentation", "counts"), [2, 1, 1, 3], r"annotation 1: segmentation counts .*, which sum to 7: expected .* sum to 6"),
    (("annotations", 0, "segmentation", "counts"), "2~1", "annotation 1: segmentation counts 2~1: expected"),
    (("annotations", 0, "segmentation"), [[1, 2, 3, 4]], "annotation 1: segmentation=.*: expected polygons"),
    (("categories",), None, "annotations: categories=None: expected a list of dicts"),
]
DETECTIONS = [
    ((0, "image_id"), 8, r"detections\[0\]: image_id=8: expected"), ((0, "category_id"), 1, r"detections\[0\]: category_id=1: expected"),
    ((0, "score"), float("inf"), r"detections\[0\]: score=inf: expected a finite number"),
    ((0, "segmentation", "counts"), [2, 1, -1, 4], r"detections\[0\]: segmentation counts .*: expected"),
    ((0, "segmentation"), None, r"detections\[0\]: segmentation=None: expected run lengths"), ((0,), 3, r"detections\[0\]=3: expected a dict"),
]


def changed(content, place, value):
    content = copy.deepcopy(content)
    at = content
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return content


@pytest.mark.parametrize("place,value,message", TRUTH)
def test_annotation_errors(place, value, message):
    truth, detections = one()
    with pytest.raises(ValueError, match=message):
        evaluation.detection.coco_ap(changed(truth, place, value), detections, "segm")


@pytest.mark.parametrize("place,value,message", DETECTIONS)
def test_detection_errors(place, value, message):
    truth, detections = one()
    with pytest.raises(ValueError, match=message):
        evaluation.detection.coco_ap(truth, changed(detections, place, value), "segm")


def test_other_errors(tmp_path, monkeypatch):
    truth, detections = one()
    twice = truth | {"annotations": truth["annotations"] * 2}
    (tmp_path / "twice.json").write_text(json.dumps(twice))
    with pytest.raises(ValueError, match=r"twice.json: annotation .*: expected an id of its own"):
        evaluation.detection.coco_ap(tmp_path / "twice.json", detections, "bbox")
    with pytest.raises(ValueError, match="kind='keypoints': expected one of 'bbox', 'segm'"):
        evaluation.detection.coco_ap(truth, detections, "keypoints")
    with pytest.raises(ValueError, match="detections=dict: expected a list"):
        evaluation.detection.coco_ap(truth, {}, "bbox")
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(ImportError, match=r"hotcoco is not installed.*vmamba_jax\[detection\]"):
        evaluation.detection.coco_ap(truth, detections, "bbox")


def test_detections_of_outputs(golden):
    """MMDetection's boxes and masks in the images' own pixels, from the detector's boxes and probabilities."""
    arrays, scales = golden("dense_mask_rcnn_vmamba"), [(0.7515527950310559, 0.75), (1.2549019607843137, 1.25)]
    masks = np.split(arrays["eval/mask_probabilities_f64"], 2)
    outputs = {name: np.stack([arrays[f"eval/{name}{i}"] for i in range(2)]) for name in ("boxes", "scores", "labels")}
    outputs |= {"masks": np.stack(masks), "valid": np.arange(28).reshape(2, 14) != 13}
    found = detections_of(outputs, [5, 9], [(124, 161), (64, 102)], scales, categories=[11, 12, 13, 14, 15])
    assert [each["image_id"] for each in found] == [5] * 13 + [9] * 14
    for i, each in enumerate(found):
        image, j = (0, i) if i < 13 else (1, i - 13)
        x, y, width, height = each["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], arrays[f"eval/rescaled_boxes{image}"][j], rtol=1e-5, atol=1e-4)
        assert each["category_id"] == arrays[f"eval/labels{image}"][j] + 11
        assert each["segmentation"] == run_lengths(arrays[f"eval/rescaled_masks{image}"][j])
