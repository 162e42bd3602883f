"""Color jitter of Pillow images, as torchvision's ColorJitter."""
import dataclasses

import numpy as np
from PIL import Image, ImageEnhance

from vmamba_jax.core import checks


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """`jitter(photo, rng)` changes brightness, contrast, saturation and hue in random order.

    Attributes:
        brightness, contrast, saturation: x >= 0; the factor is uniform on [max(0, 1 - x), 1 + x]; 0: no change.
        hue: x in [0, 0.5]; the rotation is uniform on [-x, x] of the hue circle; photos with one channel keep theirs.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation"):
            checks.number(name, getattr(self, name), low=0)
        checks.number("hue", self.hue, low=0, high=0.5)

    def __call__(self, photo, rng):
        for name in rng.permutation([field.name for field in dataclasses.fields(self)]):
            if strength := getattr(self, name):
                low, high = (-strength, strength) if name == "hue" else (max(0.0, 1 - strength), 1 + strength)
                photo = adjust(name, photo, rng.uniform(low, high))
        return photo


def adjust(name, photo, factor):
    """The photo after one change.

    Args:
        name: "brightness", "contrast", "saturation" or "hue".
        photo: Pillow image of mode L or RGB.
        factor: for "hue" the rotation as a fraction of the hue circle; else 1 changes nothing and 0 removes all of it.
    """
    if name != "hue":
        return _ENHANCE[name](photo).enhance(factor)
    if photo.mode == "L":
        return photo
    hue, saturation, value = photo.convert("HSV").split()
    rotated = (np.asarray(hue).astype(np.int32) + int(factor * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(rotated.astype(np.uint8)), saturation, value)).convert("RGB")


_ENHANCE = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}
