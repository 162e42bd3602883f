"""The report of evaluated runs: its numbers, its figures, and that it is self-contained."""
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.helpers import fake_runs
from tests.helpers.html_page import Page
from vmamba_jax import reports
from vmamba_jax.reports import figures, tables

TITLE = "Two models <compared>"


@pytest.fixture
def runs(tmp_path):
    return [reports.read_run(fake_runs.write(tmp_path, name), label) for name, label in
            (("standard", "standard training"), ("pgd_at", "adversarial training"))]


def test_page_is_complete_and_self_contained(runs, tmp_path):
    path = reports.write(tmp_path / "report.html", runs, title=TITLE, about="Tiny.", commands=["make quickstart"])
    text = path.read_text()
    page = Page(text)
    words = " ".join(" ".join(page.text).split())
    assert page.open == []
    for expected in (TITLE, "Tiny.", "make quickstart", "69.2 %", "3.4 %", "98.4 %", "98.1 %", "83.0 %", "FGSM, L\u221e 0.2",
                     "PGD-20, 5 restarts, L\u221e 0.2", "0.10.2", "3.11.7", "0123abc", "cpu x 2", "model.overrides.dims", "32, 64", "360 images"):
        assert expected in words, expected
    assert len(page.alts) == 42 and all(page.alts)  # 2 figures, 2 models x 2 rows x 10 digits
    assert page.sources and all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    assert "@import" not in text and "url(http" not in text
    assert sorted(page.links) == sorted(f"{name}/{file}" for name in ("pgd_at", "standard") for file in
                                        ("config.json", "evaluation.json", "metrics.jsonl", "results.json"))
    assert all((tmp_path / link).is_file() for link in page.links)
    assert page.classes.count("tile wrong") == 10 and page.classes.count("tile") == 30
    assert not list(tmp_path.glob("*.part"))


def test_page_is_deterministic(runs):
    assert reports.render(runs, title=TITLE) == reports.render(runs, title=TITLE)


def test_page_of_an_evaluation_alone(tmp_path):
    folder = fake_runs.write(tmp_path, "pgd_at", examples=False, metrics=False)
    for file in ("config.json", "results.json"):
        (folder / file).unlink()
    page = Page(reports.render([reports.read_run(folder)], title=TITLE))
    assert page.open == [] and len(page.alts) == 1 and "69.2 %" in " ".join(page.text)


def test_missing_attack_is_a_dash(tmp_path):
    folders = [fake_runs.write(tmp_path, name) for name in ("standard", "pgd_at")]
    evaluation = json.loads((folders[0] / "evaluation.json").read_text())
    del evaluation["attacks"]["fgsm"]
    (folders[0] / "evaluation.json").write_text(json.dumps(evaluation))
    runs = [reports.read_run(folder) for folder in folders]
    _, rows = tables.accuracy(runs)
    fgsm = [cells[2] for _, cells in rows]
    assert fgsm[0] is None and fgsm[1]["value"] == 0.83
    assert tables.text(runs).splitlines()[1].split() == ["standard", "98.1", "%", "3.4", "%", "-"]
    assert "\u2013" in reports.render(runs, title=TITLE)


def test_read_run(tmp_path):
    folder = fake_runs.write(tmp_path, "pgd_at")
    run = reports.read_run(folder)
    assert run.label == "pgd_at"
    steps, loss = run.series("loss")
    assert steps == list(range(10, 301, 10)) and loss == sorted(loss, reverse=True)  # without the incomplete line
    assert run.series("no such metric") == ([], [])
    with pytest.raises(FileNotFoundError, match=r"experiments\.evaluate"):
        reports.read_run(tmp_path)


def test_differing_config_fields(runs):
    rows = {field: (values, differs) for field, values, differs in tables.configs(runs)}
    assert rows["objective.name"] == (["standard", "pgd_at"], True)
    assert rows["epochs"] == (["30", "30"], False)


def test_text_table_is_aligned(runs):
    lines = tables.text(runs).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[2].split()[-2:] == ["69.2", "%"]


@pytest.mark.parametrize("eps, name", [(0.2, "0.2"), (8 / 255, "8/255"), (0.125, "0.125"), (0.0, "0"), (0.01234, "0.01234"), (1.0, "1")])
def test_radius_name(eps, name):
    assert figures.radius_name(eps) == name


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (4, 6, 3)])
def test_tile_keeps_every_pixel(shape):
    image = np.random.default_rng(0).uniform(size=shape)
    uri = figures.tile(image, size=24)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    picture = picture.reshape(*picture.shape[:2], shape[-1])
    repeat = picture.shape[0] // shape[0]
    assert min(picture.shape[:2]) >= 24 and picture.shape[:2] == (shape[0] * repeat, shape[1] * repeat)
    np.testing.assert_array_equal(picture[::repeat, ::repeat], np.round(image * 255).astype(np.uint8))


def test_figures_use_the_colors_of_the_page(runs):
    drawn = figures.robustness(runs)
    assert "var(--series-0" in drawn and "var(--series-1" in drawn and "var(--ink" in drawn
    assert "<style" not in drawn and "#ffffff" not in drawn and "font-family" not in drawn


def test_attack_without_a_radius():
    """Patch-Fool replaces patches, whatever the distance."""
    assert reports.tables.attack_name({"label": "Patch-Fool-250", "norm": "patches", "eps": None}) == "Patch-Fool-250, patches unbounded"
    assert reports.tables.attack_name({"label": "PGD-20", "norm": "linf", "eps": 8 / 255}) == "PGD-20, L\u221e 8/255"


@pytest.mark.parametrize("label", ["budget_$5_vs_$6", "_hidden", "100% <a> & b"])
def test_any_label_is_drawn_as_it_is(tmp_path, label):
    """Matplotlib reads text between two dollar signs as mathematics, and leaves out legend entries with a leading underscore."""
    run = reports.read_run(fake_runs.write(tmp_path, "pgd_at"), label)
    path = reports.write(tmp_path / "report.html", [run], title=label)
    page = Page(path.read_text())
    assert page.open == [] and " ".join(page.text).count(label) >= 5  # title twice, card, table, legends


def test_links_are_quoted(tmp_path):
    folder = fake_runs.write(tmp_path / "50% #1", "pgd_at")
    text = reports.render([reports.read_run(folder)], title="t", folder=tmp_path)
    assert 'href="50%25%20%231/pgd_at/evaluation.json"' in text
