"""RandAugment's fifteen operations on Pillow images, each at a level from 0 to 10 (Cubuk et al., arXiv 1909.13719; numbers of timm 0.4.12).

Shears, translations and rotations resample and fill the pixels they uncover; a sign of -1 reverses them. With `increasing`, six operations
whose strength would fall with the level, or have "no change" in the middle, get stronger with it instead.
"""
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

LEVELS = 10.0  # the highest


class Operation(NamedTuple):
    run: Callable  # (photo, strength, {"resample": filter, "fillcolor": color}) -> photo
    strength: Callable | None = None  # (level / LEVELS, sign) -> the operation's own unit; None: it has no strength
    increasing: Callable | None = None  # the same, growing with the level; None: `strength` grows already


def apply(name, photo, level, sign=1, *, increasing=False, resample=Image.Resampling.BICUBIC, fill=(128, 128, 128)):
    """The photo after one operation.

    Args:
        name: a key of `OPERATIONS`.
        photo: Pillow image of mode L or RGB.
        level: in [0, 10].
        sign: 1 or -1, for operations with two directions.
        increasing: use the variants whose strength grows with the level.
        resample: Pillow filter.
        fill: color in the photo's mode.
    """
    operation = OPERATIONS[name]
    strength = operation.increasing if increasing and operation.increasing else operation.strength
    how = {"resample": resample, "fillcolor": fill}
    return operation.run(photo, strength(level / LEVELS, sign) if strength else None, how)


def _affine(matrix):
    """An affine operation; `matrix(strength, (width, height))` returns the six numbers that map an output pixel to its source."""
    return lambda photo, strength, how: photo.transform(photo.size, Image.Transform.AFFINE, matrix(strength, photo.size), **how)


def _enhance(kind):
    return Operation(lambda photo, factor, _: kind(photo).enhance(factor), lambda level, sign: 1.8 * level + 0.1,
                     lambda level, sign: 1.0 + sign * 0.9 * level)


def _pointwise(level):
    """A pointwise operation; `level(strength, old gray level)` is the new one. Pillow's posterize refuses 0 bits, the strength at level 10."""
    return lambda photo, strength, _: photo.point([level(strength, i) for i in range(256)] * len(photo.getbands()))


OPERATIONS = {
    "auto_contrast": Operation(lambda photo, *_: ImageOps.autocontrast(photo)),
    "equalize": Operation(lambda photo, *_: ImageOps.equalize(photo)),
    "invert": Operation(lambda photo, *_: ImageOps.invert(photo)),
    "rotate": Operation(lambda photo, degrees, how: photo.rotate(degrees, **how), lambda level, sign: sign * 30.0 * level),
    "posterize": Operation(_pointwise(lambda bits, i: i & ~(2 ** (8 - bits) - 1)), lambda level, sign: int(4 * level),
                           lambda level, sign: 4 - int(4 * level)),
    "solarize": Operation(lambda photo, threshold, _: ImageOps.solarize(photo, threshold), lambda level, sign: int(256 * level),
                          lambda level, sign: 256 - int(256 * level)),
    "solarize_add": Operation(_pointwise(lambda amount, i: min(255, i + amount) if i < 128 else i), lambda level, sign: int(110 * level)),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": Operation(_affine(lambda factor, _: (1, factor, 0, 0, 1, 0)), lambda level, sign: sign * 0.3 * level),
    "shear_y": Operation(_affine(lambda factor, _: (1, 0, 0, factor, 1, 0)), lambda level, sign: sign * 0.3 * level),
    "translate_x": Operation(_affine(lambda part, size: (1, 0, part * size[0], 0, 1, 0)), lambda level, sign: sign * 0.45 * level),
    "translate_y": Operation(_affine(lambda part, size: (1, 0, 0, 0, 1, part * size[1])), lambda level, sign: sign * 0.45 * level),
}
