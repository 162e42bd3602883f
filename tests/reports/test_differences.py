"""Differences between evaluated runs: paired where both say which images were right, else of independent samples."""
import json

import numpy as np
import pytest

from tests.helpers import fake_runs
from tests.helpers.html_page import Page
from vmamba_jax import commands, reports
from vmamba_jax.core.statistics import gap_interval, paired_interval
from vmamba_jax.reports import differences


def flags(evaluation, name, seed):
    n = evaluation["examples"]
    right = round((evaluation["accuracy"] if name == "clean" else evaluation["attacks"][name]["robust_accuracy"]) * n)
    return np.random.default_rng(seed).permutation(np.arange(n) < right)


@pytest.fixture
def folders(tmp_path):
    """Two runs on the same images, each with the images that it got right."""
    made = [fake_runs.write(tmp_path, name) for name in ("standard", "pgd_at")]
    for seed, folder in enumerate(made):
        evaluation = json.loads((folder / "evaluation.json").read_text())
        evaluation["identity"] = {"data": "same"}
        evaluation["right"] = {name: differences.packed(flags(evaluation, name, seed)) for name in ("clean", *evaluation["attacks"])}
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return made


def test_packed():
    for n in (1, 8, 13):
        given = np.random.default_rng(n).integers(0, 2, n).astype(bool)
        np.testing.assert_array_equal(differences.unpacked(differences.packed(given), n), given)


def test_paired_by_image(folders):
    runs = [reports.read_run(folder) for folder in folders]
    columns, [(label, paired, cells)] = differences.table(runs)
    first, second = (run.evaluation for run in runs)
    assert label == "pgd_at" and paired and len(columns) == len(cells) == 1 + len(first["attacks"])
    for name, cell in zip(("clean", *first["attacks"]), cells, strict=True):
        a, b = flags(first, name, 0), flags(second, name, 1)
        assert cell["value"] == pytest.approx(b.mean() - a.mean(), abs=2e-3)  # the files' accuracies are rounded
        assert (cell["low"], cell["high"]) == pytest.approx(paired_interval((b & ~a).sum(), (a & ~b).sum(), first["examples"]), abs=1e-12)
    page = reports.render(runs, title="x")
    assert runs[0].tables() and runs[0].html() == reports.render(runs[:1], title="standard")
    text = " ".join(" ".join(Page(page).text).split())
    assert "Differences from standard" in text and "paired image by image" in text and "other images" not in text


def test_the_command_writes_the_page(folders, tmp_path, capsys):
    assert commands.main(["report", *map(str, folders), "--out", str(tmp_path / "page.html"), "--label", "one", "two"]) == 0
    assert "report: " in capsys.readouterr().out and "Differences from one" in (tmp_path / "page.html").read_text()


def test_other_images_are_independent_samples(folders):
    evaluation = json.loads((folders[1] / "evaluation.json").read_text())
    evaluation["identity"]["data"] = "other"
    (folders[1] / "evaluation.json").write_text(json.dumps(evaluation))
    runs = [reports.read_run(folder) for folder in folders]
    _, [(_, paired, cells)] = differences.table(runs)
    n, counts = evaluation["examples"], [round(run.evaluation["accuracy"] * run.evaluation["examples"]) for run in runs]
    assert not paired and (cells[0]["low"], cells[0]["high"]) == pytest.approx(gap_interval(counts[1], n, counts[0], n))
    assert "Newcombe" in reports.render(runs, title="x") and "(other images)" in reports.render(runs, title="x")


def test_other_settings_are_a_dash(folders):
    evaluation = json.loads((folders[1] / "evaluation.json").read_text())
    name = next(iter(evaluation["attacks"]))
    evaluation["attacks"][name]["attack"] = {"name": "other"}
    (folders[1] / "evaluation.json").write_text(json.dumps(evaluation))
    columns, [(_, _, cells)] = differences.table([reports.read_run(folder) for folder in folders])
    assert len(columns) == len(cells) == len(evaluation["attacks"])  # the column of that attack is absent
    assert reports.render([reports.read_run(folders[0])], title="x").count("Differences from") == 0
