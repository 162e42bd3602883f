"""Object detection and instance segmentation: COCO's average precision, from annotations and detections in COCO's form."""
import importlib
import math
import os
from typing import NamedTuple

import jax
import numpy as np

from vmamba_jax.core import checks, limits
from vmamba_jax.core.results import Record
from vmamba_jax.data.annotations.segments import checked_polygons, checked_runs, encode_rle
from vmamba_jax.models.dense.instance_masks import paste

KINDS = {"bbox": "bbox", "segm": "segmentation"}
MISSING = "hotcoco is not installed: expected the package that computes COCO's average precision; pip install 'vmamba_jax[detection]'"
THRESHOLD = 0.5  # probability from which a pixel belongs to a mask


class _Numbers(NamedTuple):
    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float


class CocoAP(Record, _Numbers):
    """COCO's twelve numbers in [0, 1], -1 where no object is counted: average precision over the overlaps .50:.05:.95, at .50, at .75, of small
    (below 32^2 pixels), medium and large (above 96^2) objects; average recall with 1, 10 and 100 detections per image, of small, medium, large."""


def coco_ap(annotations, detections, kind) -> CocoAP:
    """`CocoAP` of a set, computed by hotcoco, whose numbers are those of pycocotools.

    Args:
        annotations: COCO's instances, {"images", "annotations", "categories"}, or the path of such a JSON file. Areas are the annotations' own;
            crowd regions (iscrowd=1) count neither as found nor as missed.
        detections: [{"image_id", "category_id", "score", "bbox" [x, y, width, height], "segmentation"}, ...], or the path of such a JSON file; of
            the last two keys only the kind's is read. A segmentation is {"size": [height, width], "counts": run lengths, column by column}.
        kind: "bbox" or "segm".

    Raises:
        ValueError: annotations or detections that are malformed or contradict each other; the message names the file or argument, and the entry.
        ImportError: hotcoco is not installed.
    """
    key = KINDS[checks.choice("kind", kind, KINDS)]
    annotations, name = _read(annotations, "annotations", dict)
    images, categories = _index(annotations, name)
    detections, found = _read(detections, "detections", list)
    boxes = [_detection(each, f"{found}[{i}]", images, categories, key) for i, each in enumerate(detections)]
    return scores_of(annotations, boxes, kind)


def scores_of(annotations, detections, kind) -> CocoAP:
    """`coco_ap` of checked content."""
    try:
        hotcoco = importlib.import_module("hotcoco")
    except ImportError as error:
        raise ImportError(MISSING) from error
    named = [{"name": str(each["id"]), **each} for each in annotations["categories"]]  # hotcoco warns about categories without a name
    truth = hotcoco.COCO({**annotations, "categories": named})
    scores = hotcoco.COCOeval(truth, truth.load_res(detections), kind)
    scores.evaluate()
    scores.accumulate()
    scores.summary_lines()
    return CocoAP(*map(float, scores.stats))


def detections_of(outputs, image_ids, sizes, scales=None, categories=None):
    """Detections in COCO's form from a detector's outputs, for `coco_ap` of both kinds.

    Args:
        outputs: of `MaskRCNN`, {"boxes" (b, n, 4), "scores", "labels", "valid" (b, n), "masks" (b, n, s, s)}.
        image_ids: (b,) of the annotations.
        sizes: [(height, width), ...] of the images in their files.
        scales: [(of x, of y), ...], the pixels of the detector's input per pixel of the file; None: 1.
        categories: {label: category's id}, or a sequence of the ids; None: the labels themselves.
    """
    outputs, found = {name: np.asarray(x) for name, x in outputs.items()}, []
    for i, (image, (height, width)) in enumerate(zip(image_ids, sizes, strict=True)):
        valid = outputs["valid"][i]
        boxes = outputs["boxes"][i][valid] / (np.tile(scales[i], 2) if scales is not None else 1)
        with jax.ensure_compile_time_eval():
            masks = np.asarray(paste(outputs["masks"][i][valid], boxes, height, width)) >= THRESHOLD
        for box, score, label, mask in zip(boxes, outputs["scores"][i][valid], outputs["labels"][i][valid], masks, strict=True):
            x1, y1, x2, y2 = map(float, box)
            found.append({"image_id": image, "category_id": int(label) if categories is None else categories[int(label)], "score": float(score),
                          "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": encode_rle(mask)})
    return found


# ---- checks

def _read(value, argument, kind):
    """(the content, its name for messages) of a JSON file or of what it would hold."""
    name = argument
    if isinstance(value, (str, os.PathLike)):
        name = os.fspath(value)
        with open(name, "rb") as file:
            value = limits.parse_json(file.read(), name)
    if not isinstance(value, kind):
        raise ValueError(f"{name}={type(value).__name__}: expected a {kind.__name__} in COCO's form")
    return value, name


def _index(content, name):
    """({id: (height, width)} of the images, ids of the categories) of annotations, after checking every entry."""
    images, categories = {}, set()
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list) or not all(isinstance(each, dict) for each in content[part]):
            raise ValueError(f"{name}: {part}={str(content.get(part))[:60]}: expected a list of dicts")
    for each in content["images"]:
        where = f"{name}: image {each.get('id')!r}"
        size = tuple(each.get(side) for side in ("height", "width"))
        if not all(_whole(side) and side > 0 for side in size):
            raise ValueError(f"{where}: height and width {size}: expected numbers of pixels above 0")
        images[_own("image", each, images, name)] = size
    for each in content["categories"]:
        categories.add(_own("category", each, categories, name))
    seen = set()
    for each in content["annotations"]:
        seen.add(_own("annotation", each, seen, name))
        where = f"{name}: annotation {each['id']}"
        size = _places(each, where, images, categories)
        if each.get("iscrowd", 0) not in (0, 1):
            raise ValueError(f"{where}: iscrowd={each['iscrowd']!r}: expected 0 or 1")
        if not _finite(each.get("area")) or each["area"] < 0:
            raise ValueError(f"{where}: area={each.get('area')!r}: expected a number of pixels >= 0")
        x, y, width, height = _box(each, where)
        if x >= size[1] or y >= size[0] or x + width < 0 or y + height < 0:
            raise ValueError(f"{where}: bbox={each['bbox']}: expected a part inside the image of {size[1]} x {size[0]} pixels")
        if isinstance(each.get("segmentation"), dict):
            checked_runs(where, each["segmentation"], *size)
        elif "segmentation" in each:
            checked_polygons(where, each["segmentation"])
    return images, categories


def _detection(each, where, images, categories, key):
    """A detection with the entries that count, after checking them."""
    if not isinstance(each, dict):
        raise ValueError(f"{where}={str(each)[:60]}: expected a dict")
    size = _places(each, where, images, categories)
    if not _finite(each.get("score")):
        raise ValueError(f"{where}: score={each.get('score')!r}: expected a finite number")
    if key == "bbox":
        _box(each, where)
    elif not isinstance(each.get(key), dict):
        raise ValueError(f"{where}: segmentation={str(each.get(key))[:60]}: expected run lengths {{'size', 'counts'}}")
    else:
        counts = each[key].get("counts")
        each = {**each, key: {**each[key], "counts": counts.decode("latin1") if isinstance(counts, bytes) else counts}}
        checked_runs(where, each[key], *size)
    return {name: each[name] for name in ("image_id", "category_id", "score", key)}


def _own(what, each, seen, name):
    """The id of an entry, a whole number that no other entry has."""
    if not _whole(each.get("id")) or each["id"] in seen:
        raise ValueError(f"{name}: {what} {str(each)[:60]}: expected an id of its own, a whole number")
    return each["id"]


def _places(each, where, images, categories):
    """Size of the image that an entry names; its category must be known too."""
    for key, known in (("image_id", images), ("category_id", categories)):
        if not _whole(each.get(key)) or each[key] not in known:
            raise ValueError(f"{where}: {key}={each.get(key)!r}: expected one of the {len(known)} in the annotations")
    return images[each["image_id"]]


def _box(each, where):
    box = each.get("bbox")
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(_finite, box)) or min(box[2:]) < 0:
        raise ValueError(f"{where}: bbox={str(box)[:60]}: expected finite [x, y, width, height], the last two >= 0")
    return box


def _whole(x):
    return isinstance(x, int) and not isinstance(x, bool)


def _finite(x):
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)
