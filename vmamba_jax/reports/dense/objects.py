"""Tiles of the dense page with a detector's objects: boxes, masks and scores over images, from a run's arrays."""
import numpy as np

from vmamba_jax.reports.dense.drawing import draw_objects, region
from vmamba_jax.reports.figures import tile

SIDE = 192    # pixels of a tile, at least, in which a caption of ten pixels is readable


def tiles(found):
    """(rows of the first images, rows of the worst): [{"index", "score" or None, "images": [(caption, data URI), ...]}, ...] of a detector's run."""
    arrays, rows, classes = found.arrays, [], len(found.content["classes"])
    worst = dict(zip(found.content["worst"], found.content["worst_mask_AP"], strict=True))
    for place, index in enumerate(arrays["index"].tolist()):
        image = arrays["images"][place]
        shown = [("image", _enlarged(image)), ("objects", _drawn(image, found, "objects", place, classes)),
                 ("detections", _drawn(image, found, "detections", place, classes))]
        if "adversarial" in arrays:
            attacked = arrays["adversarial"][place]
            shown += [("attacked", _enlarged(attacked)), ("its detections", _drawn(attacked, found, "adversarial_detections", place, classes))]
        rows.append({"index": index, "score": worst.get(index), "images": [(caption, tile(each, SIDE)) for caption, each in shown]})
    first = len(rows) - len(worst)
    return [row | {"score": None} for row in rows[:first]], rows[first:]


def _drawn(image, found, name, place, classes):
    """The enlarged image in [0, 1] with the objects of the arrays `name`, which have captions unless they are the true ones."""
    boxes, labels, scores, masks = (found.arrays[f"{name}_{part}"][place] for part in ("boxes", "labels", "scores", "masks"))
    times, large = _times(image), np.round(255 * _enlarged(image)).astype(np.uint8)
    objects = []
    for box, label, score, mask in zip(boxes * times, labels.tolist(), scores.tolist(), masks, strict=True):
        if score > 0:
            mask = np.kron(mask, np.ones((times, times), bool))
            objects.append({"label": label, "name": found.content["classes"][label], "score": score, "box": box.tolist(), "mask": mask[region(box, mask.shape)]})
    return draw_objects(large, objects, classes, captions=name != "objects") / np.float32(255)


def _enlarged(image):
    times = _times(image)
    return np.repeat(np.repeat(image, times, 0), times, 1)


def _times(image):
    return max(1, -(-SIDE // min(image.shape[:2])))
