"""A detector over a set: COCO's average precision on clean, attacked, corrupted and disturbed images."""
import functools
from collections import defaultdict

import numpy as np

from vmamba_jax import parallel
from vmamba_jax.core import checks
from vmamba_jax.core.closures import argument
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.results import Result
from vmamba_jax.data.annotations.segments import encode_rle
from vmamba_jax.evaluation import corruptions as all_corruptions
from vmamba_jax.evaluation import detection
from vmamba_jax.evaluation.dense import under_corruptions
from vmamba_jax.evaluation.loop import ADVERSARIAL, Loop, on_mesh
from vmamba_jax.models.dense.detection_losses import OBJECTS
from vmamba_jax.models.dense.image_losses import image_losses

METRIC = "AP"    # of masks: the score that intervals and means over corruptions are of
RESAMPLES = 100  # of the images, for an interval


def average_precision(detector, variables, source, *, attack=None, key=None, change=None, show=(), resamples=RESAMPLES, **loop) -> Result:
    """COCO's average precision of boxes and masks over a set.

    Args:
        detector: `models.Classifier` around a `MaskRCNN`.
        variables: the model's.
        source: a `data.DenseSource` with instances and images of one size.
        attack: an attack on detection such as `attacks.detection_pgd(...)`, which gets the true objects without crowd regions; None: none.
        key: a random key, for an attack; image i of the set uses `fold_in(key, i)`.
        change: a function batch -> images, as for `dense.segmentation`; an attack acts after it.
        show: positions in the set of images to return as they were evaluated.
        resamples: of the images, for the interval; 0: no interval.
        loop: batch_size, mesh, progress, see `robust_accuracy`.

    Returns:
        {"bbox", "segm": each a dict of `detection.CocoAP`, "AP": that of masks, "interval": its 95 % bootstrap interval over images or None,
        "examples", "detections": in COCO's form, with positions in the set as image_id, "attack" if there is one, "adversarial" if show is not empty}.

    Raises:
        TypeError: a source without instances. ValueError: a targeted attack, or images of several sizes.
    """
    loop = Loop(**loop)
    if not getattr(source, "has_instances", False):
        raise TypeError(f"source={source!r}: expected a data.DenseSource with instances")
    if attack is not None and getattr(attack, "targeted", False):
        raise ValueError(f"attack={attack!r}: expected an untargeted attack, since it gets the true objects")
    judge, found, shown = on_mesh(_judge(detector), (variables, None if attack is None else argument(attack)), loop, key), [], {}
    for batch in _batches(source, loop):
        given = batch if change is None else batch | {"image": change({name: batch[name] for name in ("image", "label", "index")})}
        outputs = judge(given)
        images = outputs.pop(ADVERSARIAL)
        index, outputs = parallel.to_host((batch["index"], outputs))
        index, rows = np.unique(index, return_index=True)                # the last batch repeats its last row
        size = batch["image"].shape[1:3]
        found += detection.detections_of({name: x[rows] for name, x in outputs.items()}, index.tolist(), [size] * len(index))
        if wanted := set(show) & set(index.tolist()):
            images = parallel.to_host(images)
            shown |= {i: images[rows[np.flatnonzero(index == i)[0]]] for i in wanted}
        if loop.progress:
            loop.progress(int(index[-1]) + 1, len(source), {})
    truth = annotations_of(source)
    scores = {kind: detection.coco_ap(truth, found, kind)._asdict() for kind in detection.KINDS}
    more = {} if attack is None else {"attack": getattr(attack, "settings", repr(attack))}
    more |= {ADVERSARIAL: np.stack([shown[i] for i in show])} if len(show) else {}
    return Result(scores | more | {METRIC: scores["segm"]["AP"], "interval": interval(truth, found, resamples) if resamples else None,
                                   "examples": len(source), "detections": found})


def corruption_scores(detector, variables, source, *, key, corruptions=all_corruptions.CORRUPTIONS, severities=all_corruptions.SEVERITIES, table=None,
                      clean=None, **loop) -> Result:
    """Mask AP under each corruption at each severity, their mean (mPC) and the mean relative to the clean AP (rPC).

    Arguments as of `average_precision` and `dense.corruption_scores`; returns as the latter, with "AP" in place of "mIoU" and None as intervals.

    Source: Michaelis et al. 2019, arXiv 1907.07484, section 3.2.
    """
    measure = lambda change: average_precision(detector, variables, source, change=change, resamples=0, **loop)
    return under_corruptions(measure, key, corruptions, severities, table=table, clean=clean, metric=METRIC, **loop)


def annotations_of(source):
    """A set's instances as COCO's annotations, for `detection.coco_ap`: images are numbered by position, categories by label."""
    images, annotations = [], []
    for i in range(len(source)):
        each = source.example(i)
        height, width = each["image"].shape[:2]
        images.append({"id": i, "height": height, "width": width})
        for (x1, y1, x2, y2), label, mask, crowd in zip(np.asarray(each["boxes"]).tolist(), each["classes"].tolist(), each["masks"], each["crowd"], strict=True):
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1],
                                "area": int(mask.sum()), "iscrowd": int(crowd), "segmentation": encode_rle(mask)})
    return {"images": images, "annotations": annotations, "categories": [{"id": k, "name": name} for k, name in enumerate(source.instance_classes)]}


def image_scores(annotations, detections):
    """(n,) mask AP of each image alone, nan where it has no object: for a list of the worst images. Arguments as of `interval`."""
    truth, seen = _by_image(annotations["annotations"]), _by_image(detections)
    found = []
    for each in annotations["images"]:
        content = annotations | {"images": [each], "annotations": truth[each["id"]]}
        found.append(detection.scores_of(content, _masks(seen[each["id"]], each["id"]), "segm").AP if truth[each["id"]] else np.nan)
    return np.array(found)


def interval(annotations, detections, resamples=RESAMPLES, seed=0):
    """95 % bootstrap interval [low, high] of the mask AP over images; resampled sets without an object are left out.

    Args:
        annotations, detections: in COCO's form, checked.
        resamples: number of resampled sets.
        seed: of the draws.
    """
    numbers, rng, found = [each["id"] for each in annotations["images"]], np.random.default_rng(seed), []
    truth, seen = _by_image(annotations["annotations"]), _by_image(detections)
    sizes = {each["id"]: each for each in annotations["images"]}
    for _ in range(checks.count("resamples", resamples)):
        drawn = rng.choice(len(numbers), len(numbers))
        drawn = [numbers[i] for i in drawn]
        objects = [each | {"image_id": place} for place, number in enumerate(drawn) for each in truth[number]]
        content = {"images": [sizes[number] | {"id": place} for place, number in enumerate(drawn)], "categories": annotations["categories"],
                   "annotations": [each | {"id": k + 1} for k, each in enumerate(objects)]}
        detected = [each for place, number in enumerate(drawn) for each in _masks(seen[number], place)]
        if (score := detection.scores_of(content, detected, "segm").AP) >= 0:
            found.append(score)
    return np.percentile(found, [2.5, 97.5]).tolist() if found else [float("nan")] * 2


def _by_image(entries):
    """{image_id: [its entries]}, [] for others."""
    found = defaultdict(list)
    for each in entries:
        found[each["image_id"]].append(each)
    return found


def _masks(detections, image):
    """What hotcoco reads of detections, as those of an image."""
    return [{name: each[name] for name in ("category_id", "score", "segmentation")} | {"image_id": image} for each in detections]


@functools.cache
def _judge(detector):
    def judge(tree, batch, key):
        variables, attack = tree
        images = batch["image"]
        if attack is not None:
            keys = None if key is None else keys_at(key, batch["index"])
            images = attack(image_losses(detector, variables), images, {name: batch[name] for name in OBJECTS}, keys)
        return detector.model.apply(variables, detector.normalize(images)) | {ADVERSARIAL: images}
    return judge


def _batches(source, loop):
    """Yield sharded batches {"image" in [0, 1], "label", "index", "boxes", "labels", "masks", "valid"} of a set, in order; the last row is repeated."""
    size, places = -(-min(loop.batch_size, len(source)) // loop.mesh.size) * loop.mesh.size, max(1, source.most_instances)
    for start in range(0, len(source), size):
        index = np.minimum(np.arange(start, start + size), len(source) - 1).astype(np.int32)
        examples = [source.example(int(i)) for i in index]
        if shapes := {each["image"].shape for each in examples[1:]} - {examples[0]["image"].shape}:
            raise ValueError(f"{source!r}: images of one batch differ in shape ({examples[0]['image'].shape}, {shapes.pop()}); expected one size")
        objects = [_objects(each, places) for each in examples]
        batch = {name: np.stack([each[name] for each in objects]) for name in OBJECTS}
        batch |= {"image": unit_interval(np.stack([each["image"] for each in examples])), "label": np.stack([each["label"] for each in examples]), "index": index}
        yield parallel.shard_batch(batch, loop.mesh)


def _objects(example, places):
    """An example's instances but crowd regions, padded: {"boxes", "labels", "masks", "valid"}."""
    real = np.flatnonzero(~example["crowd"])
    pad = lambda x, dtype: np.concatenate([x[real].astype(dtype), np.zeros((places - len(real), *x.shape[1:]), dtype)])
    return {"boxes": pad(example["boxes"], np.float32), "labels": pad(example["classes"], np.int32), "masks": pad(example["masks"], bool),
            "valid": np.arange(places) < len(real)}
