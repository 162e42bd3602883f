"""RandAugment's fifteen operations on Pillow images, each at a level from 0 to 10 (Cubuk et al., arXiv 1909.13719; numbers of timm 0.4.12).

Shears, shifts and rotations fill what they uncover and resample; a sign of -1 turns them round. With `increasing`, six operations whose
strength would fall with the level, or pass "no change" halfway, get stronger with it instead.
"""
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

LEVELS = 10.0  # the highest


class Operation(NamedTuple):
    run: Callable  # (photo, strength, {"resample": filter, "fillcolor": color}) -> photo
    strength: Callable | None = None  # (level / LEVELS, sign) -> the operation's own unit; None where it has none
    increasing: Callable | None = None  # the same when strength is to grow with the level; None: `strength` does


def apply(name, photo, level, sign=1, *, increasing=False, resample=Image.Resampling.BICUBIC, fill=(128, 128, 128)):
    """The photo after one operation.

    level: in [0, 10]. sign: 1 or -1, used by operations that have two directions. resample: Pillow filter. fill: a colour of the photo's mode.
    """
    operation = OPERATIONS[name]
    strength = operation.increasing if increasing and operation.increasing else operation.strength
    how = {"resample": resample, "fillcolor": fill}
    return operation.run(photo, strength(level / LEVELS, sign) if strength else None, how)


def _affine(matrix):
    """matrix: (strength, (width, height)) -> the six numbers that take an output pixel to where it comes from."""
    return lambda photo, strength, how: photo.transform(photo.size, Image.Transform.AFFINE, matrix(strength, photo.size), **how)


def _enhance(kind):
    return Operation(lambda photo, factor, _: kind(photo).enhance(factor), lambda share, sign: 1.8 * share + 0.1,
                     lambda share, sign: 1.0 + sign * 0.9 * share)


def _pointwise(grey):
    """grey: (strength, old grey level) -> new one. Pillow's own posterize refuses the 0 bits that the highest level leaves."""
    return lambda photo, strength, _: photo.point([grey(strength, i) for i in range(256)] * len(photo.getbands()))


OPERATIONS = {
    "auto_contrast": Operation(lambda photo, *_: ImageOps.autocontrast(photo)),
    "equalize": Operation(lambda photo, *_: ImageOps.equalize(photo)),
    "invert": Operation(lambda photo, *_: ImageOps.invert(photo)),
    "rotate": Operation(lambda photo, degrees, how: photo.rotate(degrees, **how), lambda share, sign: sign * 30.0 * share),
    "posterize": Operation(_pointwise(lambda bits, i: i & ~(2 ** (8 - bits) - 1)), lambda share, sign: int(4 * share),
                           lambda share, sign: 4 - int(4 * share)),
    "solarize": Operation(lambda photo, threshold, _: ImageOps.solarize(photo, threshold), lambda share, sign: int(256 * share),
                          lambda share, sign: 256 - int(256 * share)),
    "solarize_add": Operation(_pointwise(lambda amount, i: min(255, i + amount) if i < 128 else i), lambda share, sign: int(110 * share)),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": Operation(_affine(lambda factor, _: (1, factor, 0, 0, 1, 0)), lambda share, sign: sign * 0.3 * share),
    "shear_y": Operation(_affine(lambda factor, _: (1, 0, 0, factor, 1, 0)), lambda share, sign: sign * 0.3 * share),
    "translate_x": Operation(_affine(lambda part, size: (1, 0, part * size[0], 0, 1, 0)), lambda share, sign: sign * 0.45 * share),
    "translate_y": Operation(_affine(lambda part, size: (1, 0, 0, 0, 1, part * size[1])), lambda share, sign: sign * 0.45 * share),
}
