"""Photos through a detector or a segmenter: objects or label maps at the photo's size, drawn over it."""
import functools
import os
import pathlib

import jax
import numpy as np
from PIL import Image

from vmamba_jax import prediction
from vmamba_jax.core import checks, files
from vmamba_jax.data.decoding.images import FILTERS, Decoder, as_array, as_photo
from vmamba_jax.evaluation import views
from vmamba_jax.models.dense.image_losses import padded
from vmamba_jax.models.dense.instance_masks import paste
from vmamba_jax.models.dense.layers import OverBackbone
from vmamba_jax.models.dense.mask_rcnn import MaskRCNN
from vmamba_jax.reports.dense.drawing import draw_map, draw_objects, region

LONGEST = {True: 1333 / 800, False: 4.0}  # long side at most, per pixel of the short side: of detectors on COCO, of segmenters on ADE20K
DIVISOR = 32     # sides of a detector's padded images are multiples of it
SCORE = 0.3      # of the objects drawn, as in MMDetection's demonstration
THRESHOLD = 0.5  # probability from which a pixel belongs to a mask
ONE_VIEW = ((1.0,), False)  # scales and flip of the photo as it is
STRIP = 32       # rows of a label map that are computed at once


def is_dense(model):
    """Whether a model is a detector or a segmenter."""
    return isinstance(model, OverBackbone)


def detects(model):
    """Whether a model is a detector."""
    return isinstance(model, MaskRCNN)


class Predictor:
    """A detector or a segmenter with its weights, for photos of any size.

    A photo is resized in proportion to a short side, unless its long side would then be longer than published; results are in the photo's pixels.
    Photos of one size share a compiled program.

    Args:
        classifier: `models.Classifier` around the model.
        variables: the model's.
        names: of the classes; None: their numbers.
        short: short side of the network's input, in pixels.
        score: least score of an object, in [0, 1].
        scales, flip: views whose predictions are merged, as of `evaluation.views`: factors of the input's sides, and whether each is also mirrored.

    Raises:
        ValueError: a short side below 1, or a score outside of [0, 1]; at the first photo, no scale or one that is not positive.
    """

    def __init__(self, classifier, variables, names, short, score=SCORE, scales=(1.0,), flip=False):
        self._views = tuple(scales), flip
        self.model, self.short, self.score = classifier.model, checks.count("size", short), checks.number("score", score, low=0, high=1)
        self.detects = detects(self.model)
        self.names = tuple(f"class {k}" for k in range(self.model.num_classes)) if names is None else tuple(names)
        self.decoder = Decoder(channels=self.model.in_channels)
        self._apply = functools.partial(_compiled(classifier), variables)

    def __call__(self, pixels):
        """(picture (H', W', 3) uint8, rows) of a photo's uint8 pixels (H, W, C).

        Rows of a detector: {"label", "name", "score", "box" [x1, y1, x2, y2]} of each object, the best first; of a segmenter: {"label", "name",
        "share" of the pixels} of each class that occurs, the largest first.
        """
        return self._objects(pixels) if self.detects else self._classes(pixels)

    def _objects(self, pixels):
        small, (height, width) = self._input(pixels), pixels.shape[:2]
        size = small.shape[:2]
        if self._views == ONE_VIEW:
            found = self._apply(np.pad(small, [(0, -side % DIVISOR) for side in size] + [(0, 0)])[None], np.array([size]))
        else:
            found = views.detect(self._apply, small[None], *self._views, rule=self.model.detections)
        found = jax.device_get(found)
        scale, objects = np.tile([width / size[1], height / size[0]], 2), []
        for i in np.flatnonzero(found["valid"][0] & (found["scores"][0] >= self.score)):
            box, label = found["boxes"][0, i] * scale, int(found["labels"][0, i])
            mask = np.asarray(paste(found["masks"][0, i:i + 1], box[None].astype(np.float32), height, width))[0] >= THRESHOLD
            objects.append({"label": label, "name": self.names[label], "score": float(found["scores"][0, i]), "box": [float(x) for x in box],
                            "mask": mask[region(box, mask.shape)].copy()})
        picture = draw_objects(pixels, objects, self.model.num_classes)
        return picture, [{name: value for name, value in each.items() if name != "mask"} for each in objects]

    def _classes(self, pixels):
        images = self._input(pixels)[None]
        logits = self._apply(images) if self._views == ONE_VIEW else views.segment(self._apply, images, *self._views)  # probabilities
        label = label_map(np.asarray(logits)[0], pixels.shape[:2])
        counts = np.bincount(label.reshape(-1), minlength=len(self.names))
        rows = [{"label": int(k), "name": self.names[k], "share": float(counts[k] / label.size)} for k in np.argsort(-counts, kind="stable") if counts[k]]
        return draw_map(pixels, label, self.names, clear=self.names[0] == "background"), rows

    def _input(self, pixels):
        """The photo resized for the network, (h, w, C) float32 in [0, 1]."""
        low, high = sorted(pixels.shape[:2])
        factor = min(self.short / low, self.short * LONGEST[self.detects] / high)
        height, width = (max(1, int(side * factor + 0.5)) for side in pixels.shape[:2])
        return as_array(as_photo(pixels).resize((width, height), FILTERS["bilinear"])).astype(np.float32) / np.float32(255)


@functools.lru_cache(maxsize=4)
def _compiled(classifier):
    """A compiled function (variables, [0, 1] images, sizes of a detector's images without their padding) -> the model's output."""
    def apply(variables, images, sizes=None):
        x = classifier.normalize(images)
        if sizes is None:
            return classifier.model.apply(variables, x)
        return classifier.model.apply(variables, padded(x, sizes), sizes)
    return jax.jit(apply)


def label_map(logits, size):
    """The likeliest class (H, W) of each pixel, from logits (h, w, classes) bilinearly resized to (H, W), a strip of rows at a time.

    Between the centers of pixels and without a filter, as `models.dense.layers.resize`; the resized logits of a large photo would not fit in memory.
    """
    (top, below, down), (left, right, across) = (_taps(n, length) for n, length in zip(size, logits.shape[:2], strict=True))
    found = np.empty(size, np.int32)
    for start in range(0, size[0], STRIP):
        rows = slice(start, start + STRIP)
        x = logits[top[rows]] * (1 - down[rows, None, None]) + logits[below[rows]] * down[rows, None, None]
        found[rows] = (x[:, left] * (1 - across[:, None]) + x[:, right] * across[:, None]).argmax(-1)
    return found


def _taps(count, length):
    """(indices, next indices, shares of the next) of `length` cells at the centers of `count` pixels."""
    at = np.clip((np.arange(count) + 0.5) * length / count - 0.5, 0, length - 1)
    first = np.floor(at).astype(int)
    return first, np.minimum(first + 1, length - 1), (at - first).astype(np.float32)


def places(paths, out):
    """{photo's path: path of its picture under `out`}, with the folders below the photos' common one.

    Names are those of the photos with .png instead of their ending, or behind it where two photos of a folder differ in the ending alone.

    Raises:
        ValueError: a picture would replace its photo.
    """
    absolute = {path: pathlib.Path(os.path.abspath(path)) for path in paths}
    common = os.path.commonpath([place.parent for place in absolute.values()]) if absolute else "."
    inside = {path: place.relative_to(common) for path, place in absolute.items()}
    stems = [place.with_suffix("") for place in inside.values()]
    found = {path: pathlib.Path(out) / (place.with_suffix(".png") if stems.count(place.with_suffix("")) == 1 else place.with_name(f"{place.name}.png"))
             for path, place in inside.items()}
    for path, place in found.items():
        if place.exists() and any(place.samefile(photo) for photo in paths if os.path.exists(photo)):
            raise ValueError(f"--out={out}: expected another folder, as {place} is one of the photos; it would be replaced by the picture of {path}")
    return found


def predictions(paths, predictor, out):
    """Yields (path, path of the picture, rows of `Predictor`, None), or (path, None, None, one line) for a photo that cannot be read, in order."""
    wanted = places(paths, out)
    for path in paths:
        try:
            pixels = prediction.decode(predictor.decoder, path)
        except ValueError as error:
            yield path, None, None, str(error)
            continue
        picture, rows = predictor(pixels)
        with files.atomic(wanted[path]) as part:
            Image.fromarray(picture).save(part, format="PNG")
        yield path, wanted[path], rows, None
