"""Complete transforms: a crop to size x size and the augmentation after it."""
import dataclasses
import math

import numpy as np
from PIL import Image

from vmamba_jax.core import checks
from vmamba_jax.data.decoding.images import FILTERS, Decoder, as_array, as_photo, resize_short
from vmamba_jax.data.transforms.color_jitter import ColorJitter
from vmamba_jax.data.transforms.rand_augment import INTERPOLATIONS, draw_interpolation, parse

IMAGENET_GRAY = (124, 116, 104)  # ImageNet's mean in [0, 255]


@dataclasses.dataclass(frozen=True)
class Train:
    """Random resized crop, horizontal flip, then RandAugment or color jitter: timm 0.4.12's transform for ImageNet training.

    Attributes:
        size: side of the result.
        scale, ratio: range of the crop's fraction of the photo's area, and of its width / height; see `resized_crop_box`.
        interpolation: name of a filter, or "random" (bilinear or bicubic, drawn each time); RandAugment uses it too, as in timm.
        flip: probability of a flip left to right.
        rand_augment: a string for `rand_augment.parse`; "": none.
        color_jitter: strength of brightness, contrast and saturation, or a tuple of the three, or of four with hue; 0: none. timm drops it if
            there is RandAugment; here both together are an error.
        fill: RandAugment's fill color, RGB in 0 to 255.
    """

    size: int = 224
    scale: tuple = (0.08, 1.0)
    ratio: tuple = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    flip: float = 0.5
    rand_augment: str = ""
    color_jitter: float | tuple = 0.0
    fill: tuple = IMAGENET_GRAY

    def __post_init__(self):
        checks.count("size", self.size)
        object.__setattr__(self, "scale", checks.interval("scale", self.scale, above=0, high=1.0))
        object.__setattr__(self, "ratio", checks.interval("ratio", self.ratio, above=0))
        checks.choice("interpolation", self.interpolation, INTERPOLATIONS)
        checks.number("flip", self.flip, low=0, high=1.0)
        for field in ("color_jitter", "fill"):  # a config from JSON has lists
            if isinstance(value := getattr(self, field), list):
                object.__setattr__(self, field, tuple(value))
        if self.rand_augment and self.color_jitter:
            raise ValueError(f"color_jitter={self.color_jitter!r}: expected 0 with rand_augment={self.rand_augment!r}")
        colors = None
        if self.rand_augment:
            colors = parse(self.rand_augment, interpolation=self.interpolation, fill=self.fill)
        elif self.color_jitter:
            strengths = self.color_jitter if isinstance(self.color_jitter, tuple) else (self.color_jitter,) * 3
            if len(strengths) not in (3, 4):
                raise ValueError(f"color_jitter={self.color_jitter!r}: expected a number, or three or four of them")
            colors = ColorJitter(*strengths)
        object.__setattr__(self, "_colors", colors)

    def __call__(self, image, rng):
        photo = as_photo(image)
        left, top, w, h = resized_crop_box(*photo.size, rng, self.scale, self.ratio)
        filter = FILTERS[draw_interpolation(self.interpolation, rng)]
        photo = photo.crop((left, top, left + w, top + h)).resize((self.size, self.size), filter)
        photo = _flip(photo, self.flip, rng)
        return as_array(self._colors(photo, rng) if self._colors else photo)


@dataclasses.dataclass(frozen=True)
class SimpleCrop:
    """Short side to `size`, reflection padding, a random crop, horizontal flip: DeiT III's simple random crop, which retains more than `Train`.

    Attributes:
        size: side of the result.
        pad: pixels of padding on each side, below `size`.
        interpolation: name of a filter.
        flip: probability of a flip left to right.

    Source: Touvron et al., arXiv 2204.07118, section 3.2.
    """

    size: int = 224
    pad: int = 4
    interpolation: str = "bicubic"
    flip: float = 0.5

    def __post_init__(self):
        checks.count("size", self.size)
        if checks.count("pad", self.pad, 0) >= self.size:
            raise ValueError(f"pad={self.pad}: expected less than size={self.size}")
        checks.choice("interpolation", self.interpolation, FILTERS)
        checks.number("flip", self.flip, low=0, high=1.0)

    def __call__(self, image, rng):
        photo = resize_short(as_photo(image), self.size, self.interpolation)
        x = np.pad(as_array(photo), ((self.pad, self.pad), (self.pad, self.pad), (0, 0)), mode="reflect")
        top, left = (int(rng.integers(side - self.size + 1)) for side in x.shape[:2])
        return as_array(_flip(as_photo(x[top:top + self.size, left:left + self.size]), self.flip, rng))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Short side to `resize`, center crop of `size`, without random numbers; fields and defaults of `decoding.images.Decoder`."""

    size: int = 224
    resize: int | None = None
    interpolation: str = "bicubic"

    def __post_init__(self):
        Decoder(self.size, self.resize, self.interpolation)

    def __call__(self, image, rng):
        del rng
        x = as_array(as_photo(image))
        return Decoder(self.size, self.resize, self.interpolation, x.shape[-1])(x, "image")


def resized_crop_box(w, h, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """(left, top, width, height) of a random crop of a photo w x h.

    The area is uniform in `scale` times the photo's and width / height log-uniform in `ratio`; both sides are rounded. The first of ten draws
    that fits is placed uniformly. If none fits, the crop is the center, as large as `ratio` allows.

    Source: Szegedy et al., arXiv 1409.4842, section 6.
    """
    for _ in range(10):
        area, shape = rng.uniform(*scale) * w * h, math.exp(rng.uniform(*map(math.log, ratio)))
        width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < width <= w and 0 < height <= h:
            top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
            return left, top, width, height
    shape = min(max(w / h, ratio[0]), ratio[1])
    width, height = min(w, round(h * shape)), min(h, round(w / shape))
    return (w - width) // 2, (h - height) // 2, width, height


def _flip(photo, probability, rng):
    return photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < probability else photo
