"""The page of the mender's study, from stand-ins: claims with intervals over seeds, verdicts, tables, and a study without a finished run."""
import json

import pytest

from experiments import sweep
from tests.helpers import fake_mender
from vmamba_jax import reports
from vmamba_jax.reports.mender import results

GROUPS = ("ce", "base", "uncued", "external", "both", "random_masks", "adversarial")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    monkeypatch, at = pytest.MonkeyPatch(), tmp_path_factory.mktemp("mender")
    monkeypatch.setattr(reports, "write", lambda path, *runs, **options: path.write_text(""))
    monkeypatch.setattr(reports, "write_sweep", lambda folder, *sweep, **options: None)
    fake_mender.study(at, GROUPS)
    monkeypatch.undo()
    reports.write_mender(at, commands=("make mender",))
    return at


def test_claims(folder):
    found = {each["sentence"][:40]: each for each in json.loads((folder / "mender.json").read_text())["claims"]}
    verdict = lambda start: next(each for sentence, each in found.items() if sentence.startswith(start))
    misled = verdict("The cue misleads the model more")
    assert misled["verdict"] == "seen" and misled["mean"] == pytest.approx(0.4, abs=0.02) and misled["n"] == 3
    assert verdict("The locator finds the planted")["verdict"] == "seen"
    assert verdict("The locator finds the planted")["mean"] == pytest.approx(0.35 / 0.04, rel=0.1)
    assert verdict("The locator ranks")["verdict"] == "not seen"  # the stand-ins of both groups have the same scores
    assert verdict("External scores of c and s")["verdict"] == "seen"
    judged = [each for each in json.loads((folder / "mender.json").read_text())["claims"] if "the same states" in each["sentence"]]
    assert [each["n"] for each in judged] == [3, 3] and all(each["mean"] > 0.95 for each in judged)
    judged = results.judged(reports.read_mender(folder))
    by = {(each["group"], each["against"], each["sentence"].split(" on ")[-1][:12]): each for each in judged}
    assert by["external", "ce", "the conflict"]["verdict"] == "seen" and by["external", "random_masks", "the conflict"]["verdict"] == "seen"
    assert not any(each["group"] == "internal" for each in judged)  # a group that was not run has no claim


def test_verdicts():
    claim = lambda values, margin=0.02: results.Claim("s", "new", lambda f: f, "a", margin=margin).judge(type("Study", (), {
        "of": staticmethod(lambda group: dict(enumerate(values)))}))
    assert claim([0.1, 0.11, 0.12])["verdict"] == "seen" and claim([-0.1, -0.11, -0.12])["verdict"] == "not seen"
    assert claim([0.001, -0.001, 0.0])["verdict"] == "not seen" and claim([0.001, -0.001, 0.0], 0.0)["verdict"] == "inconclusive"
    assert claim([0.1, None, 0.12])["n"] == 2 and claim([None]) is None
    assert claim([0.5])["verdict"] == "inconclusive" and claim([0.5, -0.5])["verdict"] == "inconclusive" and claim([]) is None


def test_page_and_tables(folder):
    page = (folder / "mender.html").read_text()
    assert "make mender" in page and page.count("<svg") == 8 and "21 of 21 runs done" in page
    summary = (folder / "mender.md").read_text()
    assert "| uncued | 3 |" in summary.replace("\\", "") and "seen" in summary
    rows = json.loads((folder / "mender.json").read_text())["ranking"]
    assert len(rows) == 6 and all(a[2] >= b[2] for row in rows for a, b in zip(row["places"], row["places"][1:], strict=False))
    text = reports.mender_text(reports.read_mender(folder))
    assert "The cue misleads the model" in text and "under attack, %" in text


def test_without_a_finished_run(tmp_path, monkeypatch):
    def fails(config, folder, *, progress=True):
        raise RuntimeError("no disk")
    monkeypatch.setattr(sweep.reports, "write_sweep", lambda folder, *sweep, **options: None)
    fake_mender.study(tmp_path, ("base",), seeds=(0,), evaluate=fails)
    reports.write_mender(tmp_path)
    page = (tmp_path / "mender.html").read_text()
    assert "No run is done" in page and "no disk" in page
    assert reports.mender_text(reports.read_mender(tmp_path)) == "no run is done"
