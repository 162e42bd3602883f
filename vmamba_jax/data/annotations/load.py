"""Masks of a set's images from a folder or file of annotations, resized and cropped as the images."""
import functools
import pathlib

import numpy as np
from PIL import Image

from vmamba_jax.core import checks
from vmamba_jax.data.annotations import png
from vmamba_jax.data.annotations.boxes import read_coco, read_voc
from vmamba_jax.data.annotations.polygons import read_labelme
from vmamba_jax.data.datasets.locate import DataNotFoundError


def load(kind, path, names, decoder, sizes=None, labels=None):
    """Masks for images by their file names.

    Args:
        kind: a key of `READERS`: "png" (a folder), "coco" (a file), "voc" or "labelme" (a folder of .xml or .json files).
        path: the folder or file.
        names: file names of the images, in the set's order; folders in them are ignored but for COCO, whose files may list them.
        decoder: `Decoder` of the images with a size, whose resize and crop the masks get too; pixels that touch the foreground belong to it.
        sizes: [(height, width), ...] of the images before the resize, which the annotations must have; None: not checked.
        labels: "labelme" only: labels of the shapes to read; None: all.

    Returns:
        (masks (n, size, size) bool, annotated (n,) bool). The mask of an image without annotation is True everywhere.

    Raises:
        ValueError: a malformed annotation, one of another size than its image, or none for any image; the message names the file.
        DataNotFoundError: no such folder or file.
    """
    checks.choice("kind", kind, READERS)
    if decoder.size is None:
        raise ValueError("decoder.size=None: expected a size, as masks are stacked")
    if labels is not None and kind != "labelme":
        raise ValueError(f"labels={labels!r}: expected None with kind={kind!r}")
    if not pathlib.Path(path).exists():
        raise DataNotFoundError(f"path={str(path)!r}: expected {'a COCO file' if kind == 'coco' else 'a folder of annotations'}")
    find = READERS[kind](path, **({} if labels is None else {"labels": labels}))
    masks = np.ones((len(names), decoder.size, decoder.size), bool)
    annotated = np.zeros(len(names), bool)
    for i, name in enumerate(names):
        found = find(name)
        if found is None:
            continue
        file, mask = found
        if sizes is not None and mask.shape != tuple(sizes[i]):
            raise ValueError(f"{file}: a mask of {mask.shape[1]} x {mask.shape[0]} pixels: expected {sizes[i][1]} x {sizes[i][0]}, the size of {name}")
        masks[i], annotated[i] = foreground(mask, decoder), True
    if len(names) and not annotated.any():
        raise ValueError(f"{path}: expected an annotation for at least one of the {len(names)} images, such as {names[0]}")
    return masks, annotated


def foreground(mask, decoder):
    """A mask (H, W) resized and cropped as `decoder` does with an image: True where any foreground contributes, as after the released transform."""
    pixels = decoder.crop(Image.fromarray(mask.astype(np.uint8) * 255))
    return np.asarray(pixels) > 0


def _png(folder):
    def find(name):
        path = png.find_png(folder, name)
        return None if path is None else (path, png.read_png(path))
    return find


def _coco(path):
    listed = read_coco(path)
    short = {}
    for name in listed:
        short.setdefault(pathlib.PurePath(name).name, []).append(name)

    def find(name):
        candidates = [name] if name in listed else short.get(pathlib.PurePath(name).name, [])
        if len(candidates) > 1:
            raise ValueError(f"{path}: {', '.join(candidates)}: expected one image named {pathlib.PurePath(name).name}")
        return (listed[candidates[0]].file, listed[candidates[0]].mask()) if candidates else None
    return find


def _files(folder, suffix, read, **options):
    listed = {}
    for file in sorted(pathlib.Path(folder).glob(f"*{suffix}")):
        name, regions = read(file, **options)
        stem = pathlib.PurePath(name).stem
        if stem in listed:
            raise ValueError(f"{file}: expected one annotation of {name}, which {listed[stem].file} has too")
        listed[stem] = regions

    def find(name):
        regions = listed.get(pathlib.PurePath(name).stem)
        return None if regions is None else (regions.file, regions.mask())
    return find


READERS = {"png": _png, "coco": _coco, "voc": functools.partial(_files, suffix=".xml", read=read_voc),
           "labelme": functools.partial(_files, suffix=".json", read=read_labelme)}
