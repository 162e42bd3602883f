"""Predictions drawn over a photo at its size: a detector's boxes, masks and names, a segmenter's label map with a legend."""
import pathlib

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vmamba_jax.reports.dense.figures import ALPHA, colors_of, over

FONT = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
NARROWEST = 240    # pixels of a picture with a legend


def draw_objects(image, objects, classes, captions=True):
    """The image (H, W, 3) uint8 with each object's mask, box, and name with score; the best objects are drawn last.

    Args:
        image: (H, W, C) uint8, C 1 or 3.
        objects: [{"label", "name", "score", "box" [x1, y1, x2, y2] in pixels, and perhaps "mask", bool pixels of `region`}, ...], the best first.
        classes: number of classes, each of which has a color.
        captions: write names and scores.
    """
    colors, pixels = 255 * colors_of(classes, clear=False), _color(image).astype(np.float32)
    for each in reversed(objects):
        if (mask := each.get("mask")) is not None:
            part = pixels[region(each["box"], pixels.shape)]
            part[mask] = (1 - ALPHA) * part[mask] + ALPHA * colors[each["label"]]
    picture = Image.fromarray(np.round(pixels).astype(np.uint8))
    draw, size = ImageDraw.Draw(picture), _size(picture)
    font, width = ImageFont.truetype(FONT, size), max(1, size // 8)
    for each in reversed(objects):
        color = tuple(int(c) for c in colors[each["label"]])
        x1, y1, x2, y2 = each["box"]
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=width)
        if captions:
            _caption(draw, (x1, y1), f"{each['name']} {each['score']:.2f}", font, color, picture.size)
    return np.asarray(picture)


def draw_map(image, label, names, clear=False):
    """The image (H, W, 3) uint8 with its label map drawn over it, above a legend of the classes that occur, the largest first.

    A picture narrower than `NARROWEST` pixels is widened to hold the legend.

    Args:
        image: (H, W, C) uint8, C 1 or 3.
        label: (H, W) integers, classes.
        names: of the classes.
        clear: leave class 0 without a color and out of the legend, as a background.
    """
    found = np.round(255 * over(_color(image) / 255, label, len(names), clear=clear)).astype(np.uint8)
    picture = Image.fromarray(found)
    counts = np.bincount(label.reshape(-1), minlength=len(names))
    shown = [k for k in np.argsort(-counts, kind="stable") if counts[k] and not (clear and k == 0)]
    width, size = max(picture.width, NARROWEST), _size(picture)
    font, colors = ImageFont.truetype(FONT, size), colors_of(len(names), clear)
    entries, x, y = [], size // 2, size // 2
    for k in shown:
        text = f"{names[k]} {100 * counts[k] / counts.sum():.0f} %"
        length = int(1.5 * size + font.getlength(text)) + size
        if x > size // 2 and x + length > width:
            x, y = size // 2, y + int(1.6 * size)
        entries.append((x, y, tuple(int(255 * c) for c in colors[k]), text))
        x += length
    canvas = Image.new("RGB", (width, picture.height + y + 2 * size if entries else picture.height), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for x, y, color, text in entries:
        top = picture.height + y
        draw.rectangle((x, top, x + size, top + size), fill=color, outline="black")
        draw.text((x + 1.5 * size, top + size / 2), text, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def region(box, shape):
    """Slices (rows, columns) of the pixels of an image of `shape` (H, W, ...) that a box x1 y1 x2 y2 touches."""
    x1, y1, x2, y2 = box
    return tuple(slice(min(max(int(np.floor(first)), 0), length), min(max(int(np.ceil(last)), 0), length))
                 for first, last, length in ((y1, y2, shape[0]), (x1, x2, shape[1])))


def _caption(draw, corner, text, font, color, size):
    """Text on a background of a color, above the corner of a box where that is inside the picture of (width, height)."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x = max(0, min(corner[0], size[0] - right))
    y = corner[1] - bottom if corner[1] >= bottom else max(0, min(corner[1], size[1] - bottom))
    draw.rectangle((x, y, x + right, y + bottom), fill=color)
    draw.text((x, y), text, fill="black" if sum(color) > 330 else "white", font=font)


def _color(image):
    return image if image.shape[-1] == 3 else np.repeat(image, 3, -1)


def _size(picture):
    """Height of text in pixels."""
    return max(10, min(picture.size) // 36)
