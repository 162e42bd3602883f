"""The page of an analysis from saved files alone: pictures, scores, reasons, and what is missing."""
import json

import numpy as np
import pytest

from tests.helpers.html_page import Page
from vmamba_jax import reports
from vmamba_jax.core.statistics import mean_interval
from vmamba_jax.reports.analysis import figures

LABELS = {"runs/a <b>": "VMamba", "vit": "ViT"}


def save(folder, part, model, content, **arrays):
    file = f"cells/{part}-{len(list((folder / 'cells').iterdir()))}.json"
    (folder / file).write_text(json.dumps({"part": part, "model": model, "seconds": 1.5, "status": "done", **content}))
    if arrays:
        np.savez(folder / file.replace(".json", ".npz"), **arrays)
    return {"model": model, "part": part, "status": "done", "file": file}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cells").mkdir()
    rng, lines = np.random.default_rng(0), []
    for i, label in enumerate(LABELS):
        score = [{"share": 0.2, "side": 3 + 20 * i, "area": 0.01}, {"share": 0.99, "side": 31, "area": 0.9}]
        lines.append(save(tmp_path, "receptive_field", label, {"sides": [32, 48], "examples": 5, "skipped": i, "contribution": score},
                          field=rng.random((32, 48), np.float32)))
        maps = {name: rng.random((1, *shape, 4, 6), np.float32) for name, shape in
                {"queries": (2,), "rollout": (2,), "diagonal": (), "received": (), "each": (4,)}.items()}
        maps |= {"class": rng.random((1, 4, 6), np.float32)} if i else {"forms": rng.random((1, 5, 4, 6), np.float32)}
        lines.append(save(tmp_path, "attention", label, {"block": 3, "stage": 1, "grid": [4, 6], "places": [[2, 3], [0, 0]],
                                                         "forms": [] if i else ["CB", "CB_delta", "decay", "CB_decay", "CB_delta_decay"]},
                          photos=rng.integers(0, 256, (1, 32, 48, 3), np.uint8), **maps))
    row = {name: mean_interval([0.25, 0.35]) | {"directions": [0.3] * 4} for name in figures.MEASURES}
    lines.append(save(tmp_path, "statistics", "runs/a <b>", {"examples": 2, "blocks": [row | {"block": i, "stage": 0} for i in range(2)]}))
    lines.append(save(tmp_path, "statistics", "vit", {"status": "not applicable", "reason": "ViT has no scans"}))
    (tmp_path / "analysis.json").write_text(json.dumps({
        "config": {}, "command": "python -m experiments.analyze --workdir here", "versions": {"jax": "1"}, "commit": "abc", "device": "cpu x 1",
        "data": {"name": "photos", "split": "validation", "examples": 5}, "cells": lines,
        "models": [*({"label": label, "family": family, "parameters": 12345, "from": label, "weights": "f" * 32} for label, family in LABELS.items()),
                   {"label": "nowhere", "error": "nowhere: No such file"}]}))
    return tmp_path


def test_page(folder):
    page = Page(reports.write_analysis(folder).read_text())
    text = " ".join(" ".join(page.text).split())
    pictures = [source for source in page.sources if source.startswith("data:image/")]
    assert not page.open and all(source.startswith(("data:image/", "#")) for source in page.sources)
    # two fields; for each model one photo's two queries of three pictures with what belongs to the photo, then directions, forms
    assert len(pictures) == 2 + (3 + 2 + 3 + 4 + 5) + (3 + 3 + 3 + 4)
    for words in ("Inside 2 models", "runs/a <b>", "23 1.0 %", "4 (1 not finite)", "block 3, 4 x 6 patches", "CB_delta_decay", "head 4", "class token",
                  "0.30", "12,345", "nowhere: No such file", "not applicable: ViT has no scans", "python -m experiments.analyze --workdir here"):
        assert words in text, words
    assert "states of runs/a <b> by block." in " ".join(alt.lower() for alt in page.alts) or "runs/a" in text


def test_text(folder):
    lines = reports.analysis_text(reports.read_analysis(folder)).splitlines()
    assert lines[1].split() == ["model", "20%", "99%"] and lines[2].split()[-2:] == ["3", "31"]
    assert "runs/a <b>: share of each block's scan output through D: 0.30, 0.30" in lines


def test_missing_files(folder):
    file = next((folder / "cells").glob("receptive_field-*.npz"))
    file.unlink()
    with pytest.raises(FileNotFoundError, match="no such file; the same command computes the cell again once .* is deleted"):
        reports.write_analysis(folder)
    file.with_suffix(".json").unlink()
    assert any("the file of the cell is missing" in reason for _, _, reason in reports.read_analysis(folder).absent)
    with pytest.raises(FileNotFoundError, match=r"expected analysis.json in it; run `python -m experiments.analyze"):
        reports.read_analysis(folder / "cells")


def test_pictures():
    """The field's maximum is the color map's green end; a flat map is dark everywhere."""
    import base64
    import io

    from PIL import Image
    load = lambda uri: np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))
    field = np.zeros((8, 8))
    field[4, 4] = 5
    found = load(figures.field(field))
    assert found.shape == (168, 168, 3)
    red, green, _ = found[94, 94].astype(int)
    assert green > red and found[4, 4, 0] > found[4, 4, 1]
    flat = load(figures.overlay(np.zeros((8, 8, 3), np.uint8), np.ones((4, 4))))
    assert flat.std((0, 1)).max() < 5
    marked = load(figures.photo(np.zeros((8, 16, 3), np.uint8), (4, 4), (3, 0)))
    assert marked.shape == (84, 168, 3) and marked[63:, :42].max() > 200 and marked[:55].max() < 60
