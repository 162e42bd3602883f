"""The layout of pages without a browser: models in columns, tables that scroll and break in print, anchors, pictures, axes, ramps."""
import dataclasses
import json
import re

import pytest

from tests.helpers import browser, fake_runs, fake_study, wide_pages
from tests.helpers.html_page import Page
from vmamba_jax import reports
from vmamba_jax.core import corruption_errors
from vmamba_jax.evaluation import corruptions
from vmamba_jax.reports import contents, corruption_tables, figures, grids, page_tables
from vmamba_jax.reports.study import tables as study_tables

RADII = [k / 255 for k in (0, 0.5, 1, 2, 4, 8)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return wide_pages.runs(tmp_path_factory.mktemp("runs"), mce=61.25)


@pytest.fixture(scope="module")
def text(runs):
    return reports.render(runs, title="Eight models")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    probes = {name: fake_study.PROBES[name] for name in ("clean", "fgsm", "corruption_fog", "trajectory")}  # few figures: they take most of the time
    return wide_pages.study(tmp_path_factory.mktemp("study") / "s", probes)


@pytest.fixture(scope="module")
def study_page(study):
    return reports.render_study(study)


def test_grids():
    assert grids.by_probe(["clean", "pgd"], [("a", True, [1, 2]), ("b", True, [3])]) == (["a", "b"], [("clean", [1, 3]), ("pgd", [2, None])])
    assert grids.turned(["group", "x", "y"], [["a", "1", "2"], ["b", "3", "4"]]) == (["a", "b"], [("x", ["1", "3"]), ("y", ["2", "4"])])
    assert [grids.slices(range(n)) for n in (0, 1, 6, 7, 13)] == [[(0, 0)], [(0, 1)], [(0, 6)], [(0, 4), (4, 7)], [(0, 4), (4, 9), (9, 13)]]


def test_models_are_columns_and_probes_are_rows(text, runs, study_page, study):
    labels = [run.label for run in runs]
    found = {table.heading: table for table in reversed(page_tables.read(text))}
    assert found["Accuracy"].columns == ["attack", *labels] and [row[0] for row in found["Accuracy"].rows] == [
        "clean", "FGSM, L\u221e 0.2", "PGD-20, 5 restarts, L\u221e 0.2"]
    assert found["Calibration"].columns[1:] == found["Corruptions"].columns[1:] == found["Use of the scans"].columns[1:] == labels
    assert [row[0] for row in found["Use of the scans"].rows] == ["0", "1"]
    measured = {table.heading: table for table in page_tables.read(study_page)}
    for heading, probe in (("Whole-image and patch attacks", "FGSM, L\u221e 1/255"), ("Corruptions", "fog"), ("Scan order", "scan: snake"),
                           ("Models", "family")):
        assert measured[heading].columns[1:] == study.labels() and probe in [row[0] for row in measured[heading].rows], heading


def test_wide_tables_scroll_on_screen_and_break_in_print(text, study_page):
    """Every table lies in a container that scrolls; those of eight models are there a second time as two of four for print, hidden to readers of the page."""
    for page in (text, study_page):
        for before in page.split("<table")[:-1]:
            last = re.findall(r'<(div class="(?:scroll|print)[^>]*|/div|/table|section|h2)', before)[-1]
            assert last.startswith('div class="') or last == "/table" or before.rstrip().endswith(("</pre>", "</h2>")) or "Reproduce" in before[-400:], before[-200:]
        wide, printed = page.count('<div class="scroll screen">'), re.findall(r'<div class="print" aria-hidden="true">(.*?)</div>', page, re.DOTALL)
        assert wide == len(printed) >= 4
        for each in printed:
            assert [len(re.findall('<th scope="col">', part)) for part in each.split("</table>")[:-1]] in ([5, 5], [5, 4])  # one model less in differences
    assert page_tables.read(text) == page_tables.read(re.sub(r'<div class="print".*?</div>', "", text, flags=re.DOTALL))


def test_contents_and_anchors(text, study_page):
    for page in map(Page, (text, study_page)):
        assert page.open == [] and all(page.ids.count(anchor[1:]) == 1 for anchor in page.anchors) and len(set(page.anchors)) > 5
    assert '<nav class="contents"' in text and text.index("<nav") < text.index('<h2 id="accuracy"><a href="#accuracy">Accuracy</a></h2>')
    found = contents.with_contents("<header>\n</header>\n<h2>A &amp; B</h2><h3>A, b</h3><h2>!</h2>")
    assert found == '<header>\n</header>\n<h2 id="a-b"><a href="#a-b">A &amp; B</a></h2><h3 id="a-b-2"><a href="#a-b-2">A, b</a></h3>' \
        '<h2 id="section"><a href="#section">!</a></h2>'


def test_pictures_open(text, study_page):
    """Each picture is in a disclosure of its own; drawings are not."""
    for page in (text, study_page):
        pictures = len(re.findall('<img src="data:', page))
        assert pictures == len(re.findall('<details class="thumb"><summary><img src="data:', page)) > 0


def test_mean_over_corruptions_and_mce(text, runs, tmp_path):
    rows = {row[0]: row[1:] for row in next(table for table in page_tables.read(text) if table.heading == "Corruptions").rows}
    assert rows["gaussian noise"] == ["60.0 %"] * 8 == rows[corruption_tables.MEAN] and rows["mCE"] == ["61.2 %"] * 8
    others = corruption_tables.means(wide_pages.runs(tmp_path))
    assert dict(others["grid"][1])[corruption_tables.MEAN_ERROR] == ["40.0 %"] * 8 and others["sums"] == (corruption_tables.MEAN, corruption_tables.MEAN_ERROR)
    fewer = runs[1].evaluation["corruptions"] | {"rows": runs[1].evaluation["corruptions"]["rows"][:-1], "mce": None}
    uneven = corruption_tables.means([runs[0], dataclasses.replace(runs[1], evaluation=runs[1].evaluation | {"corruptions": fewer})])
    assert dict(uneven["grid"][1])[corruption_tables.MEAN] == ["60.0 %", None]  # one severity less: not the same mean
    assert corruption_tables.means([reports.read_run(fake_runs.write(tmp_path, "standard"))]) is None


def test_mce_of_a_study(tmp_path):
    """AlexNet's relative error on the classes of ImageNet alone, and only of models that have all fifteen corruptions."""
    probes = {"clean": {"kind": "clean"}} | {f"corruption_{name}": {"kind": "corruption", "corruption": name} for name in corruption_errors.ALEXNET}
    assert tuple(corruption_errors.ALEXNET) == corruptions.CORRUPTIONS
    folder = fake_study.write(tmp_path / "s", probes)
    names = list(probes)[1:]
    accuracy = lambda k: 0.9 - 0.1 * k
    for name in names:
        for i in range(len(fake_study.MODELS)):
            file = folder / "cells" / f"{name}-{i}.json"
            cell = json.loads(file.read_text())
            if cell["status"] == "done":
                file.write_text(json.dumps(cell | {"rows": [{"x": k, "accuracy": accuracy(k), "examples": 10, "interval": [0, 1]} for k in range(1, 6)]}))
    rows, found = study_tables.corruption_sums(reports.read_study(folder), names)
    assert found["sums"] == (corruption_tables.MEAN, corruption_tables.MEAN_ERROR) and dict(rows)[corruption_tables.MEAN] == ["60.0 %"] * 3 + [None]  # the last lacks fog
    index = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(index | {"data": index["data"] | {"name": "imagenet", "classes": 1000}}))
    rows, found = study_tables.corruption_sums(reports.read_study(folder), names)
    expected = corruptions.mean_corruption_error({name: [1 - accuracy(k) for k in range(1, 6)] for name in corruption_errors.ALEXNET})
    assert dict(rows)["mCE"] == [f"{expected:.1f} %"] * 3 + [None] and "AlexNet" in found["sentence"]


def test_no_claims_without_comparisons(tmp_path):
    study = reports.read_study(fake_study.write(tmp_path / "s", {"clean": {"kind": "clean"}}))
    assert "Claims about VMamba" not in reports.render_study(study)
    del study.cells["vmamba_s", "clean"]
    wanted = reports.read_study(fake_study.write(tmp_path / "t", {name: fake_study.PROBES[name] for name in ("clean", "fgsm")}))
    page = " ".join(" ".join(Page(reports.render_study(wanted)).text).split())
    assert "Attacks and size" in page and "Where the image is disturbed" not in page and "0 comparisons" not in page
    assert "Without comparisons, as this study lacks the models or probes: \u201cThe gradients through B and C" in page


@pytest.mark.parametrize("radii, shown", [(RADII, ["0", "1/255", "8/255"]), ([0.0, 0.1, 0.2], []), ([0.0, 1 / 300], [])])
def test_budgets_are_in_255ths(radii, shown):
    axes = figures.Figure().subplots()
    axes.plot(radii, radii)
    figures.budget_axis(axes, radii)
    drawn = [axes.xaxis.get_major_formatter()(tick, 0) for tick in axes.xaxis.get_major_locator().tick_values(0, max(radii))]
    assert set(shown) <= set(drawn) and any("/255" in tick for tick in drawn) == bool(shown)


def test_ramp_is_marked_on_training_curves(tmp_path, text):
    assert figures.ramp_steps({"schedule": {"ramp": 30}}) == 30 == figures.ramp_steps({"phases": [{"ramp": 30}, {"ramp": 0}], "schedule": {"ramp": 0}})
    assert figures.ramp_steps({"config": {"objective": {"ramp": 0.25}}, "steps": 80}) == 20 and figures.ramp_steps({}) == 0
    assert text.count("radius grows") == 2  # loss and validation
    folder = fake_runs.write(tmp_path, "pgd_at", examples=False)
    assert "radius grows" not in figures.training_curves([reports.read_run(folder)])
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | {"schedule": {"ramp": 100}}))
    run = reports.read_run(folder)
    assert figures.ramp_epochs(run) == 10 and reports.render_training(run).count("radius grows") == 2


def test_missing_browser(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    monkeypatch.delenv(browser.EXPECTED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="the browser, a device of this test, is missing"):
        browser.browser_or_skip()
    monkeypatch.setenv(browser.EXPECTED, "1")
    with pytest.raises(pytest.fail.Exception, match="expected a browser on the path"):
        browser.browser_or_skip()
