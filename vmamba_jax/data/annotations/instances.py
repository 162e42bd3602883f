"""COCO's annotation files: instances with masks, and panoptic segments."""
import dataclasses
from collections.abc import Mapping, Sequence

from vmamba_jax.core import checks, limits
from vmamba_jax.data.annotations.regions import numbers
from vmamba_jax.data.decoding.images import MOST_PIXELS, read_file

BEYOND = 1.0                       # pixels by which a box may leave its image; the released boxes are rounded
DEGENERATE = ("raise", "drop")


@dataclasses.dataclass(frozen=True)
class Listed:
    """One image of an annotation file.

    Attributes:
        file: its file name.
        height, width: in pixels.
        annotations: its annotations as the file has them, checked.
        segments: panoptic only: the file name of its PNG.
    """
    file: str
    height: int
    width: int
    annotations: Sequence = ()
    segments: str = ""


@dataclasses.dataclass(frozen=True)
class Annotations:
    """A checked annotation file.

    Attributes:
        path: of the file.
        categories: {category's number in the file: its label}, labels in the order of the numbers.
        names: of the categories, by label.
        things: labels of the categories that have instances.
        images: of the file, in its order.
        dropped: [annotation's name, ...], those left out with degenerate="drop".
    """
    path: str
    categories: Mapping
    names: tuple
    things: tuple
    images: Sequence
    dropped: Sequence = ()


def read_instances(path, degenerate="raise"):
    """`Annotations` of a COCO instances file.

    Args:
        path: of the file.
        degenerate: "raise": a box without width or height is an error; "drop": it is left out, as MMDetection does. The released training file
            has a few.

    Raises:
        ValueError: anything but such a file, a box outside of its image, an unknown image or category, run lengths of another size; the message names
            file and annotation. Masks are checked when they are decoded, see `segments.segment_mask`.
    """
    checks.choice("degenerate", degenerate, DEGENERATE)
    content = _content(path, ("images", "annotations", "categories"))
    categories, names, things = _categories(path, content["categories"])
    images, dropped = _images(path, content["images"]), []
    found = {key: [] for key in images}
    for i, each in enumerate(content["annotations"]):
        where = _where(path, each, i)
        if not isinstance(each, dict):
            raise ValueError(f"{where}: {str(each)[:60]}: expected an object")
        image = images.get(_key(each.get("image_id")))
        if image is None:
            raise ValueError(f'{where}: "image_id" {str(each.get("image_id"))[:60]}: expected one of the images of the file')
        if _key(each.get("category_id")) not in categories:
            raise ValueError(f'{where}: "category_id" {str(each.get("category_id"))[:60]}: expected one of the {len(categories)} categories of the file')
        if each.get("iscrowd", 0) not in (0, 1):
            raise ValueError(f'{where}: "iscrowd" {str(each["iscrowd"])[:60]}: expected 0 or 1')
        x, y, width, height = numbers(where, '"bbox"', each.get("bbox"), 4)
        if not (width > 0 and height > 0):
            if degenerate == "drop":
                dropped.append(where)
                continue
            raise ValueError(f'{where}: "bbox" {each["bbox"]}: expected a width and a height above 0; degenerate="drop" leaves it out')
        if x < -BEYOND or y < -BEYOND or x + width > image.width + BEYOND or y + height > image.height + BEYOND:
            raise ValueError(f'{where}: "bbox" {each["bbox"]}: expected a box inside {image.file}, {image.width} x {image.height} pixels')
        segmentation = each.get("segmentation")
        if not segmentation or not isinstance(segmentation, (list, dict)):
            raise ValueError(f'{where}: "segmentation" {str(segmentation)[:60]}: expected polygons or run lengths')
        if isinstance(segmentation, dict) and segmentation.get("size") != [image.height, image.width]:
            raise ValueError(f'{where}: run lengths of "size" {str(segmentation.get("size"))[:60]}: expected {[image.height, image.width]}, those of {image.file}')
        found[_key(each["image_id"])].append(each | {"where": where})
    listed = [dataclasses.replace(image, annotations=tuple(found[key])) for key, image in images.items()]
    return Annotations(str(path), categories, names, things, listed, tuple(dropped))


def read_panoptic(path):
    """`Annotations` of a COCO panoptic file; an image's annotations are its segments.

    Raises:
        ValueError: as for `read_instances`; segments of one image with the same number, or an image without segments.
    """
    content = _content(path, ("images", "annotations", "categories"))
    categories, names, things = _categories(path, content["categories"])
    images, listed = _images(path, content["images"]), {}
    for i, each in enumerate(content["annotations"]):
        where = f"{path}: annotation {i}"
        if not isinstance(each, dict) or not isinstance(each.get("file_name"), str) or not isinstance(each.get("segments_info"), list):
            raise ValueError(f'{where}: {str(each)[:60]}: expected an object with "file_name" and "segments_info"')
        key = _key(each.get("image_id"))
        if key not in images or key in listed:
            raise ValueError(f'{where}: "image_id" {str(each.get("image_id"))[:60]}: expected an image of the file, each once')
        segments = {}
        for segment in each["segments_info"]:
            number = segment.get("id") if isinstance(segment, dict) else None
            if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 1 << 24 or number in segments:
                raise ValueError(f'{where}: segment {str(segment)[:60]}: expected an "id" of its own, from 1 to {(1 << 24) - 1}')
            if _key(segment.get("category_id")) not in categories:
                raise ValueError(f'{where}, segment {number}: "category_id" {str(segment.get("category_id"))[:60]}: expected one of the {len(categories)} '
                                 "categories of the file")
            segments[number] = segment
        listed[key] = dataclasses.replace(images[key], annotations=tuple(segments.values()), segments=each["file_name"])
    if absent := [image.file for key, image in images.items() if key not in listed]:
        raise ValueError(f"{path}: image {absent[0]!r}: expected segments for each image, {len(absent)} have none")
    return Annotations(str(path), categories, names, things, [listed[key] for key in images])


def _content(path, lists):
    content = limits.parse_json(read_file(path), path)
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise ValueError(f"{path}: expected a COCO file, an object with the lists {', '.join(lists)}")
    return content


def _key(value):
    """A number or text that may identify something; None for any other value."""
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _where(path, each, i):
    number = _key(each.get("id")) if isinstance(each, dict) else None
    return f"{path}: annotation {f'at position {i}' if number is None else str(number)[:40]}"


def _categories(path, listed):
    found = {}
    for each in listed:
        key = _key(each.get("id")) if isinstance(each, dict) else None
        if key is None or key in found or not isinstance(each.get("name"), str):
            raise ValueError(f'{path}: category {str(each)[:60]}: expected an "id" of its own and a "name"')
        found[key] = each
    if not found:
        raise ValueError(f'{path}: "categories" is empty: expected at least one')
    order = sorted(found, key=lambda key: (isinstance(key, str), key))
    return ({key: label for label, key in enumerate(order)}, tuple(found[key]["name"] for key in order),
            tuple(label for label, key in enumerate(order) if found[key].get("isthing", 1)))


def _images(path, listed):
    found = {}
    for each in listed:
        key = _key(each.get("id")) if isinstance(each, dict) else None
        if key is None or key in found or not isinstance(each.get("file_name"), str):
            raise ValueError(f'{path}: image {str(each)[:60]}: expected an "id" of its own and a "file_name"')
        size = [each.get(name) for name in ("height", "width")]
        if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size) or size[0] * size[1] > MOST_PIXELS:
            raise ValueError(f"{path}: image {each['file_name']!r} of height and width {size}: expected whole numbers above 0, at most {MOST_PIXELS} pixels")
        found[key] = Listed(each["file_name"], *size)
    return found
