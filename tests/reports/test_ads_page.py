"""The page of the study of Adaptive Scaling, from stand-ins: claims with intervals over seeds, verdicts, comparisons, a study without a finished run."""
import json

import pytest

from experiments import sweep
from tests.helpers import fake_ads
from vmamba_jax import reports
from vmamba_jax.reports import claims
from vmamba_jax.reports.ads import results

GROUPS = tuple(fake_ads.LAST)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    monkeypatch, at = pytest.MonkeyPatch(), tmp_path_factory.mktemp("ads")
    monkeypatch.setattr(reports, "write", lambda path, *runs, **options: path.write_text(""))
    monkeypatch.setattr(reports, "write_sweep", lambda folder, *sweep, **options: None)
    fake_ads.study(at, GROUPS)
    monkeypatch.undo()
    reports.write_ads(at, commands=("make ads",))
    return at


def test_claims(folder):
    found = json.loads((folder / "ads.json").read_text())["claims"]
    claim = lambda start: next(each for each in found if each["sentence"].startswith(start))
    gain = claim("PGD training raises the accuracy under PGD of Mamba by more")
    assert gain["mean"] == pytest.approx(0.7 - 0.5) and gain["verdict"] == "seen"  # Mamba gains 70 points, S4 50
    assert gain["plus"] == ["mamba-none-pgd_at"] and gain["minus"] == ["s4-none-pgd_at"]
    assert claim("PGD training lowers the exact")["mean"] == pytest.approx(1) and claim("PGD training lowers the exact")["verdict"] == "seen"
    assert claim("After PGD training, Mamba's scan amplifies the adversarial error more")["mean"] == pytest.approx(1)
    assert claim("After PGD training, Mamba's scan amplifies the error at all")["mean"] == pytest.approx(2, abs=0.01)
    assert claim("S4 with attention overfits more")["mean"] == pytest.approx(0.1) and claim("S4 with attention overfits more")["verdict"] == "seen"
    assert claim("S4 with attention has a larger robust gen")["verdict"] == "not seen"  # a gap of 5 points in both
    assert claim("AdS (mean of its kinds) raises the accuracy under PGD of S4")["mean"] == pytest.approx(0.1)
    assert claim("AdS raises the accuracy under PGD of VMamba")["verdict"] == "not seen" and claim("AdS raises the accuracy under PGD of VMamba")["mean"] < 0
    assert claim("AdS overfits no more")["verdict"] == "seen" and claim("AdS overfits less than attention")["verdict"] == "seen"
    assert claim("AdS lowers the adversarial error")["mean"] == pytest.approx(0.301, abs=0.01)
    assert not any("of DSS." in each["sentence"] for each in found)  # groups that were not run have no claim


def test_verdicts():
    verdict = lambda values, *options: claims.judge(values, *options)["verdict"]
    assert verdict([0.1, 0.11, 0.12]) == "seen" and verdict([-0.1, -0.11, -0.12]) == "not seen" and verdict([0.5]) == "inconclusive"
    assert verdict([0.001, -0.001, 0.0], 0.02) == "not seen" and verdict([0.001, -0.001, 0.0]) == "inconclusive"
    no_more = lambda values: verdict(values, 0.02, "not above")
    assert no_more([0.001, -0.001, 0.0]) == no_more([-0.1, -0.11, -0.12]) == "seen" and no_more([0.1, 0.11, 0.12]) == "not seen"
    assert no_more([0.1, -0.1]) == no_more([0.0]) == "inconclusive"


def test_page_and_tables(folder):
    page = (folder / "ads.html").read_text()
    assert "make ads" in page and page.count("<svg") == 4 and "24 of 24 runs done" in page and all(theme in page for theme in results.THEMES.values())
    study = reports.read_ads(folder)
    assert results.answer(study) == (
        "Last accuracy under PGD-10 of sequence models with AdS minus without: +10.0 points, the mean of 1 comparison, of which 1 has a 95 % interval above "
        "0 and 0 one below. Last accuracy under PGD-10 of VMamba with AdS minus without: -10.0 points, the mean of 1 comparison, of which 0 have a 95 % "
        "interval above 0 and 1 one below.") and results.answer(study) in page
    assert {(row["model"], row["ads"]) for row in results.helped(study)} == {("s4", "relu"), ("s4", "attention"), ("vmamba", "relu")}
    row = next(row for row in results.table(study) if (row["group"], row["metric"]) == ("s4-attention-pgd_at", "best - last"))
    assert row["mean"] == pytest.approx(0.1) and row["n"] == 3
    assert "s4-none-pgd_at" in reports.ads_text(study) and "| s4 | relu | pgd" in (folder / "ads.md").read_text()


def test_without_a_finished_run(tmp_path, monkeypatch):
    def fails(config, folder, *, progress=True):
        raise RuntimeError("no disk")
    monkeypatch.setattr(sweep.reports, "write_sweep", lambda folder, *sweep, **options: None)
    fake_ads.study(tmp_path, ("s4-none-pgd_at",), seeds=(0,), evaluate=fails)
    reports.write_ads(tmp_path)
    assert "No run is done" in (tmp_path / "ads.html").read_text() and "no disk" in (tmp_path / "ads.html").read_text()
    assert reports.ads_text(reports.read_ads(tmp_path)) == "no run is done"
