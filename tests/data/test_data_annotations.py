"""Masks from annotation files: what each format means, the crop that they share with the images, and hostile files, which errors name."""
import json

import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data
from vmamba_jax.data import annotations
from vmamba_jax.data.decoding.images import Decoder

READ = {"coco": annotations.read_coco, "voc": annotations.read_voc, "labelme": annotations.read_labelme}
VOC = "<annotation><filename>a.jpg</filename><size><width>8</width><height>6</height></size><object><bndbox>{}</bndbox></object></annotation>"
BOX = "<xmin>2</xmin><ymin>3</ymin><xmax>4</xmax><ymax>6</ymax>"
EXACT = Decoder(size=4, resize=4, channels=1)


def coco(**changes):
    content = {"images": [{"id": 1, "file_name": "x/a.jpg", "width": 8, "height": 6}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}
    return json.dumps(content | changes)


def labelme(points=((1, 1), (5, 1), (5, 4)), kind="polygon", **changes):
    content = {"imagePath": "..\\pictures\\a.jpg", "imageWidth": 8, "imageHeight": 6, "shapes": [{"label": "dog", "points": points, "shape_type": kind}]}
    return json.dumps(content | changes)


def write(folder, name, text):
    path = folder / name
    path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
    return path


def boxed(rows, columns):
    mask = np.zeros((6, 8), bool)
    mask[rows, columns] = True
    return mask


def test_boxes(tmp_path):
    """COCO's boxes are corner, width and height; Pascal VOC's are first and last pixel, from 1."""
    np.testing.assert_array_equal(annotations.read_coco(write(tmp_path, "a.json", coco()))["x/a.jpg"].mask(), boxed(slice(2, 6), slice(1, 4)))
    name, regions = annotations.read_voc(write(tmp_path, "a.xml", VOC.format(BOX)))
    assert name == "a.jpg"
    np.testing.assert_array_equal(regions.mask(), boxed(slice(2, 6), slice(1, 4)))


def test_polygons(tmp_path):
    name, regions = annotations.read_labelme(write(tmp_path, "a.json", labelme(points=[[1, 1], [4, 1], [4, 3], [1, 3]])))
    assert name == "a.jpg"
    np.testing.assert_array_equal(regions.mask(), boxed(slice(1, 4), slice(1, 5)))
    _, regions = annotations.read_labelme(write(tmp_path, "b.json", labelme(points=[[4, 3], [1, 1]], kind="rectangle")))
    np.testing.assert_array_equal(regions.mask(), boxed(slice(1, 3), slice(1, 4)))
    assert not annotations.read_labelme(tmp_path / "a.json", labels=("cat",))[1].mask().any()


def test_png(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[1, 2] = 3
    Image.fromarray(mask).save(tmp_path / "a.png")
    np.testing.assert_array_equal(annotations.read_png(tmp_path / "a.png"), mask > 0)
    assert annotations.dilate(mask > 0, 1).sum() == 9 and annotations.dilate(mask > 0, 0).sum() == 1
    masks, annotated = annotations.load("png", tmp_path, ["x/a.jpg", "b.jpg"], EXACT, sizes=[(6, 8), (6, 8)])
    assert annotated.tolist() == [True, False] and masks[1].all() and masks.shape == (2, 4, 4) and 0 < masks[0].sum() < 9


def test_masks_share_the_images_crop(tmp_path):
    """A mask of the image's own bright pixels stays on the bright pixels after resize and crop."""
    image = np.zeros((40, 64, 1), np.uint8)
    image[10:30, 36:52] = 255
    decoder = Decoder(size=24, resize=28, channels=1)
    mask = annotations.foreground(image[..., 0] > 0, decoder)
    pixels = decoder(image, "image")[..., 0]
    np.testing.assert_array_equal(mask, pixels > 0)


@pytest.mark.parametrize("kind,name,text", [("coco", "all.json", coco()), ("voc", "a.xml", VOC.format(BOX)), ("labelme", "a.json", labelme())])
def test_load(tmp_path, kind, name, text):
    path = write(tmp_path, name, text)
    masks, annotated = annotations.load(kind, path if kind == "coco" else tmp_path, ["x/a.jpg", "x/b.jpg"], EXACT)
    assert annotated.tolist() == [True, False] and 0 < masks[0].sum() < 16
    with pytest.raises(ValueError, match=f"{name}.*8 x 6 pixels: expected 9 x 6, the size of x/a.jpg"):
        annotations.load(kind, path if kind == "coco" else tmp_path, ["x/a.jpg"], EXACT, sizes=[(6, 9)])
    with pytest.raises(ValueError, match="expected an annotation for at least one of the 1 images"):
        annotations.load(kind, path if kind == "coco" else tmp_path, ["other.jpg"], EXACT)


HOSTILE = [
    ("coco", b"\xff\xfe", "expected JSON"), ("coco", "[1]", "expected a COCO file"), ("coco", coco(images=[{"id": 1}]), "expected an \"id\" of its own"),
    ("coco", coco(annotations=[{"image_id": 2, "bbox": [0, 0, 1, 1]}]), "expected the \"image_id\" of one of its images"),
    ("coco", coco(annotations=[{"image_id": 1, "bbox": [0, 0, float("nan"), 1]}]), "expected 4 finite numbers"),
    ("coco", coco(annotations=[{"image_id": 1, "bbox": [0, 0, -1, 1]}]), "expected x1 < x2"),
    ("coco", coco(annotations=[{"image_id": 1, "bbox": [9, 0, 2, 2]}]), "a part inside 8 x 6 pixels"),
    ("coco", coco(annotations=[{"image_id": [1], "bbox": [0, 0, 1, 1]}]), "expected the \"image_id\""),
    ("coco", coco(images=[{"id": 1, "file_name": "a.jpg", "width": 10**6, "height": 10**6}]), "expected at most"),
    ("coco", coco(images=[{"id": 1, "file_name": "a.jpg", "width": 8.5, "height": 6}]), "expected a whole number of pixels"),
    ("voc", "<annotation>", "expected a Pascal VOC XML file"), ("voc", "<a/>", "expected a Pascal VOC file"),
    ("voc", '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "without a DTD"), ("voc", VOC.format("<xmin>a</xmin>"), "<bndbox/xmin> 'a': expected a finite"),
    ("voc", VOC.format(""), "<bndbox/xmin> None: expected a finite number"), ("voc", VOC.format(BOX.replace("2", "inf")), "expected a finite number"),
    ("labelme", "{}", "expected a labelme file"), ("labelme", labelme(points=[[1, 1], [2, 2]]), "expected 3 to"),
    ("labelme", labelme(points=[[1, 1], [2, 2], ["a", 1]]), "expected 2 finite numbers"), ("labelme", labelme(kind="circle"), "expected a polygon"),
    ("labelme", labelme(imageWidth=None), "width=None: expected a whole number"), ("labelme", labelme(points=[[-3, 1], [-2, 2], [-1, 1]]), "a part inside"),
    ("labelme", labelme(shapes=[3]), "expected \"label\" and \"points\"")]


@pytest.mark.parametrize("kind,text,message", HOSTILE)
def test_hostile_files_are_named(tmp_path, kind, text, message):
    path = write(tmp_path, "hostile.file", text)
    with pytest.raises(ValueError, match=message) as caught:
        READ[kind](path)
    assert "hostile.file" in str(caught.value) and "\n" not in str(caught.value)


def test_errors(tmp_path):
    write(tmp_path, "a.json", labelme()), write(tmp_path, "b.json", labelme())
    with pytest.raises(ValueError, match=r"b.json: expected one annotation of a.jpg, which .*a.json has too"):
        annotations.load("labelme", tmp_path, ["a.jpg"], EXACT)
    with pytest.raises(data.DataNotFoundError, match="expected a folder of annotations"):
        annotations.load("png", tmp_path / "none", ["a.jpg"], EXACT)
    with pytest.raises(ValueError, match="kind='boxes': expected one of 'png', 'coco', 'voc', 'labelme'"):
        annotations.load("boxes", tmp_path, ["a.jpg"], EXACT)
    with pytest.raises(ValueError, match="decoder.size=None"):
        annotations.load("png", tmp_path, ["a.jpg"], Decoder())
    write(tmp_path, "c.png", b"no image")
    with pytest.raises(data.BadImageError, match="c.png"):
        annotations.load("png", tmp_path, ["c.jpg"], EXACT)
