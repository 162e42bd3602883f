"""Annotated regions of one image, as boxes and polygons, and their mask."""
import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

from vmamba_jax.data.decoding.images import MOST_PIXELS

MOST_CORNERS = 1 << 16  # of one polygon


@dataclasses.dataclass(frozen=True)
class Regions:
    """Boxes and polygons on one image.

    Attributes:
        file: the annotation's file, for errors.
        height, width: of the image, in pixels.
        boxes: [(x1, y1, x2, y2), ...], edges in pixels from the upper left corner of the image; parts outside are cut off.
        polygons: [[(x, y), ...], ...] with at least three corners each.

    Raises:
        ValueError: a size that no image has, or a region that is empty, not finite or wholly outside; the message names the file.
    """
    file: str
    height: int
    width: int
    boxes: tuple = ()
    polygons: tuple = ()

    def __post_init__(self):
        for name in ("height", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value:
                raise ValueError(f"{self.file}: {name}={value!r}: expected a whole number of pixels above 0")
        if self.height * self.width > MOST_PIXELS:
            raise ValueError(f"{self.file}: an image of {self.width} x {self.height} pixels: expected at most {MOST_PIXELS}")
        for box in self.boxes:
            x1, y1, x2, y2 = numbers(self.file, "box", box, 4)
            if not (x1 < x2 and y1 < y2 and x1 < self.width and y1 < self.height and x2 > 0 and y2 > 0):
                raise ValueError(f"{self.file}: box {tuple(box)}: expected x1 < x2 and y1 < y2 and a part inside {self.width} x {self.height} pixels")
        for corners in self.polygons:
            if not isinstance(corners, (list, tuple)) or not 3 <= len(corners) <= MOST_CORNERS:
                raise ValueError(f"{self.file}: a polygon of {len(corners) if isinstance(corners, (list, tuple)) else corners!r} corners: expected "
                                 f"3 to {MOST_CORNERS}")
            x, y = np.transpose([numbers(self.file, "corner", corner, 2) for corner in corners])
            if x.max() <= 0 or y.max() <= 0 or x.min() >= self.width or y.min() >= self.height:
                raise ValueError(f"{self.file}: polygon from ({x.min():g}, {y.min():g}) to ({x.max():g}, {y.max():g}): expected a part inside "
                                 f"{self.width} x {self.height} pixels")

    def mask(self):
        """(height, width) bool: pixels whose center is in a box, and pixels that a polygon covers, its edges included."""
        found = np.zeros((self.height, self.width), bool)
        for x1, y1, x2, y2 in self.boxes:
            rows, columns = (slice(max(0, math.ceil(a - 0.5)), max(0, math.ceil(b - 0.5))) for a, b in ((y1, y2), (x1, x2)))
            found[rows, columns] = True
        if self.polygons:
            drawn = Image.new("1", (self.width, self.height))
            for corners in self.polygons:
                ImageDraw.Draw(drawn).polygon([(float(x), float(y)) for x, y in corners], fill=1, outline=1)
            found |= np.asarray(drawn)
        return found


def numbers(file, what, values, count):
    """A list of `count` finite numbers as floats; a ValueError that begins with the file otherwise."""
    good = isinstance(values, (list, tuple)) and len(values) == count and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) and abs(x) < 1e9 for x in values)
    if not good:
        raise ValueError(f"{file}: {what} {str(values)[:80]}: expected {count} finite numbers")
    return [float(x) for x in values]
