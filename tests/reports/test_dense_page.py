"""The page of the dense study, from stand-ins: scores over seeds, predictions drawn over images, a study without a finished run."""
import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.helpers import fake_dense
from vmamba_jax import reports
from vmamba_jax.reports.dense import figures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("dense")
    fake_dense.study(at)
    reports.write_dense(at, commands=("make dense",))
    return at


def test_scores(folder):
    found = json.loads((folder / "dense.json").read_text())
    clean = found["vmamba-standard"]["clean"]
    assert clean["n"] == 2 and clean["mean"] == pytest.approx(0.61) and clean["per"] == "seeds" and clean["low"] < 0.6 < 0.62 < clean["high"]
    assert found["convnext-standard"]["SEA, worst case"]["mean"] == pytest.approx(0.51 / 5)
    assert found["vmamba-standard"]["rPC"]["mean"] == pytest.approx(np.mean([0.4 / 0.6, 0.42 / 0.62]))
    text = (folder / "dense.md").read_text()
    assert "| group | seeds | clean | pgd | SEA, worst case | mPC | rPC | random, 25 % |" in text and "| convnext-standard | 2 | 51.0" in text
    assert "convnext-standard" in reports.dense_text(reports.read_dense(folder))


def test_page(folder):
    page = (folder / "dense.html").read_text()
    assert "4 of 4 runs done" in page and "make dense" in page and page.count("<svg") == 2 and page.count("data:image/png") == 2 * 2 * 5
    assert "61.0 % for vmamba-standard" in page and "background everywhere has 21.0 %" in page and "L∞ 4/255, 10 steps" in page and "nan" not in page
    prediction, attacked = (re.search(rf'src="data:image/png;base64,([^"]*)" alt="{name} of image 0"', page)[1] for name in ("prediction", "its prediction"))
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB")) for uri in (prediction, attacked)]
    assert pixels[0].shape == (128, 128, 3) and (pixels[0] != pixels[1]).any()


def test_labels_over_an_image():
    image, label = np.full((2, 2, 3), 0.5), np.array([[0, 1], [2, 255]])
    drawn, colors = figures.over(image, label, 3), figures.palette(3)
    np.testing.assert_allclose(drawn[0, 0], 0.375)
    np.testing.assert_allclose(drawn[0, 1], 0.2 + 0.6 * colors[1])
    np.testing.assert_allclose(drawn[1, 1], 0.5)
    assert len(np.unique(np.round(figures.palette(150) * 255), axis=0)) == 150


def test_one_seed_and_missing_runs(tmp_path):
    fake_dense.study(tmp_path, seeds=1, left_out=("convnext-standard/seed_0",))
    reports.write_dense(tmp_path)
    page, scores = (tmp_path / "dense.html").read_text(), json.loads((tmp_path / "dense.json").read_text())
    assert "1 of 2 runs done" in page and "convnext-standard/seed_0" in page
    clean = scores["vmamba-standard"]["clean"]
    assert clean == {"n": 1, "mean": 0.6, "low": pytest.approx(0.55), "high": pytest.approx(0.65), "per": "images"}


def test_without_a_finished_run(tmp_path):
    fake_dense.study(tmp_path, seeds=1, left_out=("convnext-standard/seed_0", "vmamba-standard/seed_0"))
    reports.write_dense(tmp_path)
    assert "No run is done" in (tmp_path / "dense.html").read_text()
    with pytest.raises(FileNotFoundError, match="runs.json: expected the folder of a study"):
        reports.read_dense(tmp_path / "other")


def test_a_detector(tmp_path):
    """A table of its own with the AP of masks, the clean numbers, and objects drawn over images: none on the attacked ones."""
    fake_dense.study(tmp_path, seeds=1, detector=True)
    reports.write_dense(tmp_path)
    page, text = (tmp_path / "dense.html").read_text(), (tmp_path / "dense.md").read_text().replace("\\_", "_")
    assert "Mask AP on the test images: 40.0 % for mask_rcnn_vmamba-standard." in page and "background everywhere has 21.0 %" in page
    assert "mask AP 0.25" in page and "mask AP in percent on 4 test images" in page and "nan" not in re.sub("data:image/[^\"]*", "", page)
    assert "| group | seeds | clean | pgd | mPC | rPC |" in text and "| detector | box AP | box AP50 | box AP75 | mask AP | mask AP50 | mask AP75 |" in text
    assert "| mask_rcnn_vmamba-standard | 1 | 40.0" in text and json.loads((tmp_path / "dense.json").read_text())["mask_rcnn_vmamba-standard"]["pgd"]["mean"] == 0.2
    objects, attacked, shown = (re.search(rf'src="data:image/png;base64,([^"]*)" alt="{name} of image 2"', re.split("<h3[^>]*><a[^>]*>mask_rcnn_", page)[1])[1]
                                for name in ("objects", "its detections", "image"))
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB")) for uri in (objects, attacked, shown)]
    assert pixels[0].shape == (192, 192, 3) and (pixels[0] != pixels[2]).any() and (pixels[1] == pixels[2]).all()
