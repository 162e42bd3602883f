"""Masks of instances as COCO's files have them: polygons, run lengths, and their compressed form."""
import numpy as np
from PIL import Image, ImageDraw

from vmamba_jax.data.annotations.regions import MOST_CORNERS, numbers

DEEPEST = 5  # characters of five bits that one run length may have


def encode_rle(mask):
    """{"counts": [...], "size": [height, width]} of a mask (H, W): run lengths column by column, the first of zeros."""
    values = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(values)) + 1
    edges = np.concatenate([[0], changes, [values.size]])
    runs = np.diff(edges).tolist() if values.size else []
    return {"counts": [0, *runs] if values.size and values[0] else runs, "size": list(mask.shape)}


def segment_mask(where, segmentation, height, width):
    """The mask (height, width) bool of a COCO segmentation.

    Args:
        where: file and annotation, for errors.
        segmentation: a list of polygons [x1, y1, x2, y2, ...], or run lengths {"counts": a list or COCO's compressed string, "size"}.
        height, width: of the image.

    Raises:
        ValueError: anything else, or run lengths that do not fill the image; the message begins with `where`.
    """
    if isinstance(segmentation, dict):
        return _decode(where, segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f'{where}: "segmentation" {str(segmentation)[:60]!r}: expected a list of polygons, or run lengths with "counts" and "size"')
    drawn = Image.new("1", (width, height))
    for polygon in segmentation:
        count = len(polygon) if isinstance(polygon, list) else 0
        if count < 6 or count % 2 or count > 2 * MOST_CORNERS:
            raise ValueError(f'{where}: polygon {str(polygon)[:60]}: expected x and y of 3 to {MOST_CORNERS} corners')
        values = numbers(where, "polygon", polygon, count)
        ImageDraw.Draw(drawn).polygon(list(zip(values[::2], values[1::2], strict=True)), fill=1, outline=1)
    return np.asarray(drawn).copy()


def _decode(where, rle, height, width):
    if rle.get("size") != [height, width]:
        raise ValueError(f'{where}: run lengths of "size" {str(rle.get("size"))[:60]}: expected {[height, width]}, the height and width of the image')
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = _decompress(where, counts)
    if not isinstance(counts, list) or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= height * width for n in counts):
        raise ValueError(f'{where}: "counts" {str(counts)[:60]}: expected run lengths from 0 to {height * width}')
    if sum(counts) != height * width:
        raise ValueError(f"{where}: run lengths with the sum {sum(counts)}: expected {height * width}, the pixels of {width} x {height}")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(width, height).T.copy()


def _decompress(where, text):
    """Run lengths of COCO's compressed string: five bits a character, the differences to the run before the last from the third on."""
    runs, i = [], 0
    codes = [ord(letter) - 48 for letter in text]
    if not all(0 <= code < 64 for code in codes):
        raise ValueError(f'{where}: "counts" {text[:60]!r}: expected the characters of COCO\'s compressed run lengths')
    while i < len(codes):
        value = shift = 0
        while True:
            if i == len(codes) or shift == 5 * (DEEPEST + 2):
                raise ValueError(f'{where}: "counts" {text[-60:]!r}: expected complete compressed run lengths')
            code = codes[i]
            value |= (code & 31) << shift
            i, shift = i + 1, shift + 5
            if not code & 32:
                break
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
