"""The page of a study: sections, comparisons, and the rule of the verdicts."""
import json

import numpy as np
import pytest

from tests.helpers import fake_study
from tests.helpers.html_page import Page
from vmamba_jax import reports
from vmamba_jax.reports.study import claims as study_claims
from vmamba_jax.reports.study.claims import Comparison, judge

SECTIONS = ("Claims about VMamba", "Models", "Whole-image and patch attacks", "Corruptions", "Component-wise gradients",
            "Occlusion and shuffling", "Scan order", "Sensitivity to the position", "One image through every probe", "Skipped cells", "Reproduce")
FOUND = ["seen", "inconclusive", "seen", "not seen", "seen", "seen"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return reports.read_study(fake_study.write(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def text(study):
    return reports.render_study(study, title="Two <kinds>", commands=["make study"])


def test_sections(study, text):
    page = Page(text)
    words = " ".join(" ".join(page.text).split())
    assert page.open == [] and all(page.alts)
    assert [words.index(name) for name in SECTIONS] == sorted(words.index(name) for name in SECTIONS)
    for expected in ("Two <kinds>", "FGSM, L\u221e 1/255", "Patch-Fool, 2 patches", "42.0 %", "fog", "scan: snake", "make study", "0.10.2", "abcdef",
                     "no ImageNet-A folder given", "it has no selective scan", "ValueError: <fog> too thick", "no checkpoint here",
                     "\u221230.0 points per step", "within \u00b13 points", "120,000", "failed"):
        assert expected in words, expected
    assert text.count("<svg ") == 9 and "Distribution shifts" not in words  # no cell of a shift ran
    assert page.sources and all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    assert all((study.folder / link).is_file() for link in page.links) and len(set(page.links)) == 1 + len(study.index["cells"])


def test_page_is_deterministic(study, text):
    assert reports.render_study(study, title="Two <kinds>", commands=["make study"]) == text


def test_page_of_the_clean_probe_alone(tmp_path):
    study = reports.read_study(fake_study.write(tmp_path / "s", {"clean": fake_study.PROBES["clean"]}))
    page = Page(reports.render_study(study))
    assert page.open == [] and {claim.verdict for _, claims in study.claims for claim in claims} == {"inconclusive"}


def test_folder_without_a_study_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected study.json in it; run `python -m experiments.study"):
        reports.read_study(tmp_path)


def test_terminal(study):
    lines = reports.study_text(study).splitlines()
    assert lines[1].split()[:3] == ["vmamba_s", "95.0", "%"] and lines[-1] == "cells: 43 done, 8 not applicable, 1 failed"
    assert [claim.verdict for _, claims in study.claims for claim in claims] == FOUND


def test_comparisons_are_paired_by_image(study):
    stronger = study.claims[0][1][0]
    assert [c.label for c in stronger.comparisons][:2] == ["FGSM, L\u221e 1/255: vmamba_s minus swin", "Patch-Fool, 2 patches: vmamba_s minus swin"]
    assert [round(c.difference, 6) for c in stronger.comparisons] == [0.2, 0.2] + [0.22, 0.22] * (len(stronger.comparisons) == 4)
    assert study_claims.pairs(study) == [("vmamba_s", "swin"), ("vmamba_l", "swin")] and study_claims.sizes(study) == [("vmamba_s", "vmamba_l")]


def test_probe_that_breaks_both_models_is_excluded(tmp_path):
    folder = fake_study.write(tmp_path / "s")
    for i in range(len(fake_study.MODELS)):
        file = folder / f"cells/fgsm-{i}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rows": [fake_study.row(10 - 2 * i)]}))
    stronger = reports.read_study(folder).claims[0][1][0]
    assert {c.label.split(":")[0] for c in stronger.comparisons} == {"Patch-Fool, 2 patches"}


def test_gradient_claims_need_an_effective_attack(tmp_path):
    folder = fake_study.write(tmp_path / "s")
    for i in range(2):
        file = folder / f"cells/components-{i}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"accuracy": 0.93}))
    through = reports.read_study(folder).claims[1][1]
    assert [claim.verdict for claim in through] == ["inconclusive"] * 2 and not any(claim.comparisons for claim in through)


def test_continuity_needs_clean_rows(tmp_path):
    folder = fake_study.write(tmp_path / "s", {name: probe for name, probe in fake_study.PROBES.items() if name != "clean"})
    continuity = reports.read_study(folder).claims[2][1][0]
    assert continuity.verdict == "inconclusive" and not continuity.comparisons


def of(*intervals):
    return [Comparison("", (low + high) / 2, low, high) for low, high in intervals]


@pytest.mark.parametrize("claimed, intervals, verdict", [
    ("above", [], "inconclusive"),
    ("above", [(0.01, 0.2)], "seen"),
    ("above", [(0.01, 0.2), (-0.1, 0.1)], "seen"),
    ("above", [(0.01, 0.2), (-0.2, -0.01)], "not seen"),
    ("above", [(-0.1, 0.1)], "inconclusive"),
    ("above", [(-0.02, 0.02), (-0.03, 0.01)], "not seen"),
    ("above", [(-0.02, 0.02), (-0.1, 0.01)], "inconclusive"),
    ("below", [(-0.2, -0.01), (-0.1, 0.1)], "seen"),
    ("below", [(0.01, 0.2)], "not seen"),
    ("not above", [(-0.2, 0.02)], "seen"),
    ("not above", [(-0.2, 0.1)], "inconclusive"),
    ("not above", [(0.01, 0.1)], "not seen"),
    ("not above", [(0.01, 0.1), (-0.2, -0.1)], "not seen"),
])
def test_verdict_rule(claimed, intervals, verdict):
    assert judge(of(*intervals), claimed, 0.03) == verdict


def test_packed_results_round_trip():
    right = np.random.default_rng(0).random(13) < 0.5
    assert study_claims.correct({"right": np.packbits(right).tobytes().hex(), "examples": 13}).tolist() == right.astype(int).tolist()


def test_control_without_a_scan(tmp_path):
    """A MambaOut of the same size: each claim about the scan compares every VMamba with it, image by image; other sizes are not compared."""
    folder = fake_study.write(tmp_path / "s")
    index = json.loads((folder / "study.json").read_text())
    index["models"][3] |= {"family": "MambaOut", "parameters": 55_000}
    (folder / "study.json").write_text(json.dumps(index))
    study = reports.read_study(folder)
    assert study_claims.controlled(study) == [("vmamba_s", "resnet")]  # vmamba_l has more than twice its parameters
    heading, (stronger, continuity, center) = study.claims[-1]
    assert heading == "The scan itself, with a network without it as the control" and len(study.claims) == 4
    assert [(c.label, round(c.difference, 6)) for c in stronger.comparisons] == [
        ("FGSM, L\u221e 1/255: vmamba_s minus resnet", 0.1), ("Patch-Fool, 2 patches: vmamba_s minus resnet", 0.1)] and stronger.verdict == "seen"
    assert [round(c.difference, 6) for c in continuity.comparisons] == [0.215, 0.215] and continuity.verdict == "seen"  # 40 images more, of 3 more
    [difference] = center.comparisons
    assert difference.difference == 0 and difference.high == pytest.approx(1.96 * 0.05 * 2**0.5, rel=1e-3) and center.verdict == "inconclusive"
    assert "which has no scan" in reports.render_study(study)
    assert len(reports.read_study(fake_study.write(tmp_path / "other")).claims) == 3
