"""COCO's layout, also of other sets that use it: a folder of images, and an annotation file of instances or of panoptic segments."""
import functools
import pathlib

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.labels import IGNORE
from vmamba_jax.data.annotations.instances import read_instances, read_panoptic
from vmamba_jax.data.annotations.segments import segment_mask
from vmamba_jax.data.datasets.dense_shapes import boxes_of
from vmamba_jax.data.datasets.locate import DataNotFoundError, check_split, root_folder
from vmamba_jax.data.decoding.images import Decoder, as_array, file_size, read_file
from vmamba_jax.data.dense import DenseSource
from vmamba_jax.data.source import digest

PARTS = {"train": "train2017", "validation": "val2017", "test": "val2017"}
KINDS = ("instances", "panoptic")
ADVICE = ("COCO is ROOT/{train2017,val2017}/*.jpg and ROOT/annotations/{instances,panoptic}_{train2017,val2017}.json (cocodataset.org), with the PNG files of "
          "panoptic segments in ROOT/annotations/panoptic_{train2017,val2017}. Pass images=..., annotations=..., segments=... for other places.")


def load(split, root=None, *, kind="instances", images=None, annotations=None, segments=None, degenerate="raise", empty=True):
    """Images with label maps and instances, decoded on demand; their sizes vary, so batches need `DensePipeline` with a joint transform.

    Args:
        split: "train", "validation" or "test", which is the released validation set.
        root: see `data.load`.
        kind: "instances" (label maps show the categories of instances, smaller ones in front, and 255 elsewhere), or "panoptic" (label maps of things and
            stuff; the things are instances).
        images, annotations, segments: paths under root of the image folder, the annotation file and the folder of PNG files; None: COCO's.
        degenerate: "raise" or "drop", see `annotations.read_instances`.
        empty: False: leave out images without instance, as training does.

    Raises:
        DataNotFoundError: absent files.
        ValueError: inconsistent annotations, on loading or when an image is read; the message names file and annotation.
    """
    check_split(split), checks.choice("kind", kind, KINDS), checks.flag("empty", empty)
    root = root_folder(root, ADVICE)
    part = PARTS[split]
    folder = root / (part if images is None else images)
    file = root / (f"annotations/{kind}_{part}.json" if annotations is None else annotations)
    pngs = None if kind == "instances" else root / (f"annotations/panoptic_{part}" if segments is None else segments)
    for path, exists in ((folder, folder.is_dir()), (file, file.is_file()), *([] if pngs is None else [(pngs, pngs.is_dir())])):
        if not exists:
            raise DataNotFoundError(f"{path} is absent. {ADVICE}")
    found = read_instances(file, degenerate) if kind == "instances" else read_panoptic(file)
    return Coco(root, folder, found, pngs, split, empty)


class Coco(DenseSource):
    """Images of an annotation file.

    Args:
        root: folder of the set, for its name.
        folder: of the images.
        annotations: `annotations.instances.Annotations`.
        pngs: folder of the panoptic segments; None: instances.
        split, empty: see `load`.
    """
    has_instances = True

    def __init__(self, root, folder, annotations, pngs, split, empty=True):
        super().__init__(pathlib.Path(root).resolve().name, split, annotations.names, None)
        self.folder, self.annotations, self.pngs = pathlib.Path(folder), annotations, pngs
        things = {label: k for k, label in enumerate(annotations.things)}
        self.instance_classes = tuple(annotations.names[label] for label in annotations.things)
        self._labels_of = {key: (label, things.get(label)) for key, label in annotations.categories.items()}
        self.listed = [image for image in annotations.images if empty or image.annotations]

    def __len__(self):
        return len(self.listed)

    @property
    def most_instances(self):
        return max((len(image.annotations) for image in self.listed), default=0)

    def example(self, i):
        listed = self.listed[int(self._positions([i])[0])]
        path = self.folder / listed.file
        image = as_array(Decoder(exif=False).open(read_file(path), str(path)))
        if image.shape[:2] != (listed.height, listed.width):
            raise ValueError(f"{path}: an image of {image.shape[1]} x {image.shape[0]} pixels: expected {listed.width} x {listed.height}, as in "
                             f"{self.annotations.path}")
        return {"image": image} | (self._instances(listed) if self.pngs is None else self._segments(listed))

    def _instances(self, listed):
        masks = np.zeros((len(listed.annotations), listed.height, listed.width), bool)
        boxes, classes, label = np.zeros((len(masks), 4), np.float32), np.zeros(len(masks), np.int32), np.full(masks.shape[1:], IGNORE, np.int32)
        crowd = np.array([bool(each.get("iscrowd", 0)) for each in listed.annotations], bool)
        for i, each in enumerate(listed.annotations):
            masks[i] = segment_mask(each["where"], each["segmentation"], listed.height, listed.width)
            if not masks[i].any():
                raise ValueError(f"{each['where']}: a mask without any pixel: expected at least one")
            x, y, width, height = each["bbox"]
            boxes[i] = x, y, x + width, y + height
            classes[i] = self._labels_of[each["category_id"]][0]
        for i in sorted(range(len(masks)), key=lambda i: (not crowd[i], -int(masks[i].sum()))):
            label[masks[i]] = classes[i]
        high = np.array([listed.width, listed.height] * 2, np.float32)
        return {"label": label, "boxes": np.clip(boxes, 0, high), "classes": classes, "masks": masks, "crowd": crowd}

    def _segments(self, listed):
        path = self.pngs / listed.segments
        colors = as_array(Decoder(exif=False).open(read_file(path), str(path))).astype(np.int64)
        if colors.shape[:2] != (listed.height, listed.width):
            raise ValueError(f"{path}: segments of {colors.shape[1]} x {colors.shape[0]} pixels: expected {listed.width} x {listed.height}, the size of {listed.file}")
        numbers = colors @ np.array([1, 256, 256**2])
        known = {segment["id"]: segment for segment in listed.annotations}
        if unknown := sorted(set(np.unique(numbers).tolist()) - {0, *known}):
            raise ValueError(f"{path}: segment {unknown[0]}: expected one that {self.annotations.path} lists for {listed.file}")
        label, masks, classes, crowd = np.full(numbers.shape, IGNORE, np.int32), [], [], []
        for number, segment in known.items():
            mask = numbers == number
            if not mask.any():
                raise ValueError(f"{path}: segment {number} of {self.annotations.path}: expected at least one pixel")
            semantic, thing = self._labels_of[segment["category_id"]]
            label[mask] = semantic
            if thing is not None:
                masks.append(mask), classes.append(thing), crowd.append(bool(segment.get("iscrowd", 0)))
        masks = np.array(masks, bool).reshape(-1, *numbers.shape)
        return {"label": label, "boxes": boxes_of(masks), "classes": np.array(classes, np.int32), "masks": masks, "crowd": np.array(crowd, bool)}

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 of class names, annotations, file names and file sizes; the images are not read."""
        sizes = np.array([file_size(self.folder / image.file) for image in self.listed], "<i8")
        return digest(self.classes, self.listed, sizes)
