"""Shapes on textures that occlude each other, with semantic map, instances and COCO annotations: a set for dense tasks that needs no files.

The first shape of an image is in front; what it covers of later ones is missing from their masks. A shape is left out if less than `LEAST` of it
would be visible.
"""
import functools
import json
import pathlib

import numpy as np
from PIL import Image

from vmamba_jax.core import checks, files
from vmamba_jax.data.annotations.segments import encode_rle
from vmamba_jax.data.datasets.locate import SPLITS
from vmamba_jax.data.datasets.textures import textures
from vmamba_jax.data.dense import DenseArrays

SHAPES = ("disk", "box", "triangle")
CLASSES = ("background", *SHAPES)
COLORS = ("class", "random")
HUES = np.array([(200, 70, 60), (70, 180, 90), (70, 90, 200)], np.float64)  # a color per shape, of which an image's colors vary
LEAST = 0.3        # visible share of a shape that is drawn
SPREAD = 45        # of the colors around `HUES`, gray levels


class DenseShapes(DenseArrays):
    """`DenseArrays` with the share of each instance that others hide.

    Attributes:
        occlusion: for each image (n,) float32 in [0, 1 - LEAST].
    """

    def __init__(self, images, labels, instances, occlusion, **options):
        super().__init__(images, labels, CLASSES, instances=instances, instance_classes=SHAPES, **options)
        self.occlusion = occlusion

    def coco(self):
        """The set's annotations as COCO's JSON: masks as uncompressed run lengths, categories numbered from 1."""
        images, annotations = [], []
        for i in range(len(self)):
            height, width, _ = self.image_shape
            images.append({"id": i + 1, "file_name": f"{i:06d}.png", "height": height, "width": width})
            found = self._instances[i]
            for box, shape, mask in zip(found["boxes"].tolist(), found["classes"].tolist(), found["masks"], strict=True):
                x1, y1, x2, y2 = box
                annotations.append({"id": len(annotations) + 1, "image_id": i + 1, "category_id": shape + 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
                                    "area": int(mask.sum()), "iscrowd": 0, "segmentation": encode_rle(mask)})
        categories = [{"id": k + 1, "name": name} for k, name in enumerate(SHAPES)]
        return {"images": images, "annotations": annotations, "categories": categories}

    def write(self, folder):
        """Write the images as FOLDER/images/*.png, the label maps as FOLDER/labels/*.png, and FOLDER/instances.json, as COCO's files."""
        folder = pathlib.Path(folder)
        for name, arrays in (("images", self.images), ("labels", self.label_maps.astype(np.uint8))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i, array in enumerate(arrays):
                Image.fromarray(array).save(folder / name / f"{i:06d}.png")
        with files.atomic(folder / "instances.json") as part:
            part.write_text(json.dumps(self.coco()), encoding="utf-8")


def load(split, root=None, *, seed=0, size=64, examples=(384, 64, 96), shapes=(1, 4), colors="class"):
    """One split, rendered from the seed.

    Args:
        split: "train", "validation" or "test".
        root: ignored; the images are rendered.
        seed: of the scenes, >= 0.
        size: side of the images in pixels, >= 16.
        examples: numbers of images of the splits.
        shapes: smallest and largest number of shapes in an image before those left out.
        colors: "class": a shape's color varies around that of its class, which a model learns in about a hundred steps; "random": any color, so
            that only the form tells the classes apart.

    Returns:
        `DenseShapes`.
    """
    checks.choice("split", split, SPLITS), checks.choice("colors", colors, COLORS)
    checks.count("seed", seed, 0), checks.count("size", size, 16)
    low, high = checks.interval("shapes", tuple(shapes), low=1)
    if len(examples) != len(SPLITS):
        raise ValueError(f"examples={examples!r}: expected a number for each of {', '.join(SPLITS)}")
    place = SPLITS.index(split)
    count = checks.count(f"examples[{place}]", examples[place])
    images, labels, instances, occlusion = _scenes(seed, place, size, count, int(low), int(high), colors)
    return DenseShapes(images, labels, instances, occlusion, name="dense_shapes", split=split)


@functools.lru_cache(maxsize=8)
def _scenes(seed, place, size, n, low, high, colors):
    rng = np.random.default_rng([seed, place, size, 3])
    backgrounds, insides = textures(n, size, rng), textures(n, size, rng)
    images, labels, instances, occlusion = (np.zeros((n, size, size, 3), np.uint8), np.zeros((n, size, size), np.int32), [], [])
    for i in range(n):
        count = rng.integers(low, high + 1)
        kinds = rng.integers(0, len(SHAPES), count)
        whole = _masks(kinds, size, rng)
        shown, kept, hidden = np.zeros((size, size), np.int64), [], []
        for j, mask in enumerate(whole):
            visible = mask & (shown == 0)
            if visible.sum() >= max(LEAST * mask.sum(), 8):
                shown[visible] = j + 1
                kept.append((kinds[j], visible))
                hidden.append(1 - visible.sum() / mask.sum())
        pixels = backgrounds[i] + rng.uniform(90, 165) + rng.uniform(-15, 15, 3)
        for kind, mask in kept:
            color = HUES[kind] + rng.uniform(-SPREAD, SPREAD, 3) if colors == "class" else rng.uniform(20, 235, 3)
            pixels[mask] = insides[i][mask] * 0.7 + color
            labels[i][mask] = kind + 1
        images[i] = np.round(np.clip(pixels, 0, 255))
        masks = np.array([mask for _, mask in kept], bool).reshape(-1, size, size)
        instances.append({"boxes": boxes_of(masks), "classes": np.array([kind for kind, _ in kept], np.int32), "masks": masks,
                          "crowd": np.zeros(len(masks), bool)})
        occlusion.append(np.array(hidden, np.float32))
    return images, labels, tuple(instances), tuple(occlusion)


def _masks(kinds, size, rng):
    """Whole shapes (n, size, size) bool at random places and angles, wholly inside."""
    radius = rng.uniform(0.14, 0.27, len(kinds)) * size
    y0, x0 = rng.uniform(0, 1, (2, len(kinds))) * (size - 1 - 2 * radius) + radius
    angle = rng.uniform(-np.pi, np.pi, len(kinds))
    grid = np.arange(size)
    dy, dx = grid[None, :, None] - y0[:, None, None], grid[None, None] - x0[:, None, None]
    cos, sin = (f(angle)[:, None, None] for f in (np.cos, np.sin))
    u, v = (cos * dx + sin * dy) / radius[:, None, None], (cos * dy - sin * dx) / radius[:, None, None]
    found = np.stack([np.hypot(u, v) <= 0.9, np.maximum(abs(u), abs(v) * 1.4) <= 0.78, (v <= 0.5) & (v >= 1.8 * abs(u) - 0.98)])
    return found[kinds, np.arange(len(kinds))]


def boxes_of(masks):
    """The tight boxes (n, 4) float32, x1 y1 x2 y2, of masks (n, H, W); 0 for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
