"""Boxes from COCO's JSON files and Pascal VOC's XML files."""
import pathlib
import xml.etree.ElementTree as ElementTree

from vmamba_jax.core import limits
from vmamba_jax.data.annotations.regions import Regions, numbers
from vmamba_jax.data.decoding.images import read_file


def read_coco(path):
    """{image's file name: `Regions`} of a COCO file: boxes [x, y, width, height]; images without annotation have no entry.

    Crowd regions are included. Segmentations are not read.

    Raises:
        ValueError: anything but such a file; the message names it.
    """
    content = limits.parse_json(read_file(path), path)
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in ("images", "annotations")):
        raise ValueError(f'{path}: expected a COCO file, an object with the lists "images" and "annotations"')
    images, boxes = {}, {}
    for each in content["images"]:
        if not isinstance(each, dict) or not isinstance(each.get("file_name"), str) or not isinstance(each.get("id"), (int, str)) or each["id"] in images:
            raise ValueError(f'{path}: image {str(each)[:80]}: expected an "id" of its own and a "file_name"')
        images[each["id"]] = each
    for each in content["annotations"]:
        if not isinstance(each, dict) or not isinstance(each.get("image_id"), (int, str)) or each["image_id"] not in images:
            raise ValueError(f'{path}: annotation {str(each)[:80]}: expected the "image_id" of one of its images')
        x, y, width, height = numbers(path, '"bbox"', each.get("bbox"), 4)
        boxes.setdefault(each["image_id"], []).append((x, y, x + width, y + height))
    found = {}
    for key, listed in boxes.items():
        name = images[key]["file_name"]
        if name in found:
            raise ValueError(f'{path}: two images with "file_name" {name!r}: expected different names')
        found[name] = Regions(f"{path}, {name}", images[key].get("height"), images[key].get("width"), tuple(listed))
    return found


def read_voc(path):
    """(image's file name, `Regions`) of a Pascal VOC file: boxes whose corners are the first and last pixel, from 1.

    Raises:
        ValueError: anything but such a file, or one with a DTD, whose entities could expand without limit; the message names it.
    """
    raw = read_file(path)
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise ValueError(f"{path}: expected an XML file without a DTD")
    try:
        tree = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{path}: expected a Pascal VOC XML file, but {error}") from error
    if tree.tag != "annotation" or not tree.findtext("filename"):
        raise ValueError(f"{path}: expected a Pascal VOC file, an <annotation> with a <filename>")
    height, width = (_number(path, tree, f"size/{name}") for name in ("height", "width"))
    if height != int(height) or width != int(width):
        raise ValueError(f"{path}: size {width} x {height}: expected whole numbers of pixels")
    boxes = []
    for each in tree.iterfind("object"):
        x1, y1, x2, y2 = (_number(path, each, f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((x1 - 1, y1 - 1, x2, y2))
    return pathlib.PurePath(tree.findtext("filename").strip()).name, Regions(str(path), int(height), int(width), tuple(boxes))


def _number(path, tree, place):
    text = tree.findtext(place)
    try:
        return numbers(path, f"<{place}>", [float(text)], 1)[0]
    except (TypeError, ValueError):
        raise ValueError(f"{path}: <{place}> {text!r}: expected a finite number") from None
