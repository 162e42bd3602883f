"""Joint transforms of an example of `data.dense`: `transform(example, rng) -> example`, a pure function of both.

    transform = joint.create("segmentation", size=512, scale=(2048, 512))
    batches = data.DensePipeline(source, 16, transform=transform)

An example has "image", "label" and perhaps "boxes", "classes", "masks", "crowd", see `data.DenseSource`. Sizes are in pixels. The recipes are
MMSegmentation's and MMDetection's, with Pillow's filters: their bilinear resize has no filter where it shrinks, Pillow's has.
"""
import dataclasses

import numpy as np
from PIL import Image

from vmamba_jax.core import checks
from vmamba_jax.core.labels import IGNORE
from vmamba_jax.data.decoding.images import MOST_RESIZED, BadImageError, as_array, as_photo

TRIES = 10  # further draws of a crop that one category fills


@dataclasses.dataclass(frozen=True)
class Resize:
    """Resize within a long and a short side, in proportion; both multiplied by a random ratio.

    Attributes:
        long, short: most pixels of the two sides. Several short sides as a tuple: one is drawn, as DETR's multi-scale training does.
        ratio: range of the ratio.
    """
    long: int
    short: int | tuple
    ratio: tuple = (1.0, 1.0)

    def __post_init__(self):
        checks.count("long", self.long)
        shorts = self.short if isinstance(self.short, (tuple, list)) else (self.short,)
        object.__setattr__(self, "short", tuple(checks.count("short", each) for each in shorts))
        object.__setattr__(self, "ratio", checks.interval("ratio", tuple(self.ratio), above=0))
        if not self.short:
            raise ValueError("short=(): expected at least one side")

    def __call__(self, example, rng):
        ratio = rng.uniform(*self.ratio)
        sides = [int(side * ratio) for side in (self.long, self.short[rng.integers(len(self.short))])]
        height, width = example["image"].shape[:2]
        factor = min(max(sides) / max(height, width), min(sides) / min(height, width))
        return resized(example, max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5)))


@dataclasses.dataclass(frozen=True)
class Crop:
    """A random window, drawn again, up to ten times, while one category fills too much of it; an image that is smaller keeps its side.

    Attributes:
        size: (height, width) of the window, or one number for both.
        most: largest share of one category among the pixels that count; 1: no limit.
    """
    size: int | tuple
    most: float = 0.75

    def __post_init__(self):
        object.__setattr__(self, "size", _pair("size", self.size))
        checks.number("most", self.most, above=0, high=1)

    def __call__(self, example, rng):
        for _ in range(1 + TRIES * (self.most < 1)):
            window = self._window(example["label"].shape, rng)
            if self._mixed(example["label"][window]):
                break
        return cropped(example, *window)

    def _window(self, shape, rng):
        starts = [int(rng.integers(max(length - side, 0) + 1)) for length, side in zip(shape, self.size, strict=True)]
        return tuple(slice(start, min(start + side, length)) for start, side, length in zip(starts, self.size, shape, strict=True))

    def _mixed(self, label):
        if self.most == 1:
            return True
        _, counts = np.unique(label[label != IGNORE], return_counts=True)
        return len(counts) > 1 and counts.max() / counts.sum() < self.most


@dataclasses.dataclass(frozen=True)
class Flip:
    """A flip left to right.

    Attributes:
        probability: of the flip.
    """
    probability: float = 0.5

    def __post_init__(self):
        checks.number("probability", self.probability, low=0, high=1)

    def __call__(self, example, rng):
        if rng.random() >= self.probability:
            return example
        found = example | {"image": example["image"][:, ::-1], "label": example["label"][:, ::-1]}
        if "boxes" in example:
            x1, y1, x2, y2 = example["boxes"].T
            width = example["image"].shape[1]
            found |= {"boxes": np.stack([width - x2, y1, width - x1, y2], -1), "masks": example["masks"][:, :, ::-1]}
        return found


@dataclasses.dataclass(frozen=True)
class Photometric:
    """Brightness, contrast, saturation and hue, each with probability one half: MMSegmentation's PhotoMetricDistortion, after SSD.

    Contrast comes before or after saturation and hue. Values are clipped to 0 to 255 after each change.

    Attributes:
        brightness: largest shift in gray levels.
        contrast, saturation: ranges of the factors.
        hue: largest rotation, in units of 2 degrees.
    """
    brightness: float = 32
    contrast: tuple = (0.5, 1.5)
    saturation: tuple = (0.5, 1.5)
    hue: float = 18

    def __post_init__(self):
        checks.number("brightness", self.brightness, low=0), checks.number("hue", self.hue, low=0, high=90)
        for name in ("contrast", "saturation"):
            object.__setattr__(self, name, checks.interval(name, tuple(getattr(self, name)), low=0))

    def __call__(self, example, rng):
        image, scaled = example["image"], lambda x, factor, shift=0.0: np.clip(x * factor + shift, 0, 255).astype(np.uint8)
        if image.shape[-1] != 3:
            raise BadImageError(f"an image of {image.shape[-1]} channels: expected 3 for a change of its colors")
        if rng.random() < 0.5:
            image = scaled(image.astype(np.float32), 1.0, rng.uniform(-self.brightness, self.brightness))
        first = rng.random() < 0.5
        steps = ("contrast", "saturation", "hue") if first else ("saturation", "hue", "contrast")
        for step in steps:
            if rng.random() >= 0.5:
                continue
            if step == "contrast":
                image = scaled(image.astype(np.float32), rng.uniform(*self.contrast))
                continue
            hue, saturation, value = Image.fromarray(np.ascontiguousarray(image)).convert("HSV").split()
            if step == "saturation":
                saturation = Image.fromarray(scaled(np.asarray(saturation).astype(np.float32), rng.uniform(*self.saturation)))
            else:
                hue = Image.fromarray(((np.asarray(hue) + rng.uniform(-self.hue, self.hue) * 256 / 180) % 256).astype(np.uint8))
            image = np.asarray(Image.merge("HSV", (hue, saturation, value)).convert("RGB"))
        return example | {"image": image}


@dataclasses.dataclass(frozen=True)
class Pad:
    """Pad below and to the right: images with `fill`, label maps with 255, masks with False; "size" of the result is (height, width) before.

    Attributes:
        size: (height, width) of the result, or one number for both; a larger image is an error. None: up to multiples of `divisor`.
        divisor: see size.
        fill: gray level.
    """
    size: int | tuple | None = None
    divisor: int = 1
    fill: int = 0

    def __post_init__(self):
        if self.size is not None:
            object.__setattr__(self, "size", _pair("size", self.size))
        checks.count("divisor", self.divisor), checks.count("fill", self.fill, 0)

    def __call__(self, example, rng):
        shape = example["label"].shape
        size = self.size or tuple(-(-length // self.divisor) * self.divisor for length in shape)
        more = [(0, side - length) for side, length in zip(size, shape, strict=True)]
        if min(end for _, end in more) < 0:
            raise BadImageError(f"an image of {shape[0]} x {shape[1]} pixels: expected at most {size[0]} x {size[1]}, the padded size")
        found = example | {"image": np.pad(example["image"], (*more, (0, 0)), constant_values=self.fill),
                           "label": np.pad(example["label"], more, constant_values=IGNORE)}
        return found | {"size": np.array(shape, np.int32)} | ({"masks": np.pad(example["masks"], ((0, 0), *more))} if "masks" in example else {})


@dataclasses.dataclass(frozen=True)
class Chain:
    """Several transforms in turn, each with the same generator."""
    parts: tuple

    def __call__(self, example, rng):
        for part in self.parts:
            example = part(example, rng)
        return example


def segmentation(size=512, scale=(2048, 512), ratio=(0.5, 2.0), most=0.75, flip=0.5, photometric=True):
    """MMSegmentation's training on ADE20K: random resize, crop with category limit, flip, photometric distortion, pad to size x size."""
    colors = (Photometric(),) if photometric else ()
    return Chain((Resize(max(scale), min(scale), tuple(ratio)), Crop(size, most), Flip(flip), *colors, Pad(size)))


def detection(size=1344, long=1333, shorts=(800,), flip=0.5):
    """MMDetection's training on COCO: resize, flip, pad to size x size. shorts=range(480, 801, 32) as a tuple is DETR's multi-scale."""
    return Chain((Resize(long, tuple(shorts)), Flip(flip), Pad(size)))


def detection_crop(size=1344, long=1333, shorts=tuple(range(480, 801, 32)), first=(400, 500, 600), crop=(384, 600), flip=0.5):
    """DETR's multi-scale training: with probability one half resize, crop a window of random size, and resize again; see `detection`."""
    direct = Resize(long, tuple(shorts))
    return Chain((Flip(flip), _Either(direct, Chain((Resize(4200, tuple(first)), _RandomSizeCrop(tuple(crop)), direct))), Pad(size)))


@dataclasses.dataclass(frozen=True)
class _Either:
    first: object
    second: object

    def __call__(self, example, rng):
        return (self.first if rng.random() < 0.5 else self.second)(example, rng)


@dataclasses.dataclass(frozen=True)
class _RandomSizeCrop:
    """A window whose sides are uniform between `crop`'s two numbers, at most the image's."""
    crop: tuple

    def __call__(self, example, rng):
        low, high = self.crop
        size = tuple(int(rng.integers(min(low, length), min(high, length) + 1)) for length in example["label"].shape)
        return Crop(size, 1.0)(example, rng)


def resized(example, height, width):
    """The example at another size: bilinear images, nearest labels and masks, scaled boxes."""
    old_height, old_width = example["image"].shape[:2]
    if height * width > MOST_RESIZED:
        raise BadImageError(f"an image of {old_width} x {old_height} pixels would have {width} x {height} after the resize; expected at most {MOST_RESIZED} pixels")
    nearest = lambda x: x[..., _nearest(old_height, height)[:, None], _nearest(old_width, width)]
    image = as_array(as_photo(np.ascontiguousarray(example["image"])).resize((width, height), Image.Resampling.BILINEAR))
    found = example | {"image": image, "label": nearest(example["label"])}
    if "boxes" in example:
        factors = np.array([width / old_width, height / old_height] * 2, np.float32)
        found |= {"boxes": example["boxes"] * factors, "masks": nearest(example["masks"])}
    return found


def cropped(example, rows, columns):
    """The example's window; boxes are clipped to it, and instances without any pixel or any area of their box in it are left out."""
    found = example | {"image": example["image"][rows, columns], "label": example["label"][rows, columns]}
    if "boxes" in example:
        y, x = rows.start, columns.start
        low, high = np.zeros(4, np.float32), np.array([columns.stop - x, rows.stop - y] * 2, np.float32)
        boxes = np.clip(example["boxes"] - np.array([x, y, x, y], np.float32), low, high)
        masks = example["masks"][:, rows, columns]
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & masks.any((1, 2))
        found |= {"boxes": boxes[kept], "masks": masks[kept], "classes": example["classes"][kept], "crowd": example["crowd"][kept]}
    return found


def _nearest(old, new):
    """The pixel of `old` whose center is nearest to that of each of `new`."""
    return np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)


def _pair(name, value):
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name}={value!r}: expected one number or a pair (height, width)")
    return tuple(checks.count(name, each) for each in values)


_TRANSFORMS = {"segmentation": segmentation, "detection": detection, "detection_crop": detection_crop}


def create(name, **options):
    """A recipe's transform by name, "segmentation", "detection" or "detection_crop", with its options."""
    return checks.by_name("transform", name, _TRANSFORMS, options)(**options)


def names():
    """The names that `create` accepts."""
    return list(_TRANSFORMS)
