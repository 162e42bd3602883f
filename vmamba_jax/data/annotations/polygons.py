"""Polygons from labelme's JSON files."""

from vmamba_jax.core import limits
from vmamba_jax.data.annotations.regions import Regions, numbers
from vmamba_jax.data.decoding.images import read_file


def read_labelme(path, labels=None):
    """(image's file name, `Regions`) of a labelme file: its polygons, and its rectangles as boxes.

    Args:
        path: the file.
        labels: labels of the shapes to read; None: all.

    Raises:
        ValueError: anything but such a file, or a shape of another type; the message names it.
    """
    content = limits.parse_json(read_file(path), path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list) or not isinstance(content.get("imagePath"), str):
        raise ValueError(f'{path}: expected a labelme file, an object with "shapes" and "imagePath"')
    boxes, polygons = [], []
    for shape in content["shapes"]:
        if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
            raise ValueError(f'{path}: shape {str(shape)[:80]}: expected "label" and "points"')
        if labels is not None and shape.get("label") not in labels:
            continue
        match shape.get("shape_type", "polygon"):
            case "polygon":
                polygons.append([tuple(numbers(path, "corner", corner, 2)) for corner in shape["points"]])
            case "rectangle" if len(shape["points"]) == 2:
                (x1, y1), (x2, y2) = (numbers(path, "corner", corner, 2) for corner in shape["points"])
                boxes.append((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
            case kind:
                raise ValueError(f'{path}: "shape_type" {kind!r} with {len(shape["points"])} points: expected a polygon, or a rectangle of two points')
    name = content["imagePath"].replace("\\", "/").rpartition("/")[2]
    return name, Regions(str(path), content.get("imageHeight"), content.get("imageWidth"), tuple(boxes), tuple(polygons))
