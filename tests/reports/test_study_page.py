"""The page of a study from cells alone, and the rule of its verdicts."""
import json

import numpy as np
import pytest

from tests.helpers import fake_study
from tests.helpers.html_page import Page
from vmamba_jax import reports
from vmamba_jax.reports.study import claims as study_claims
from vmamba_jax.reports.study.claims import Comparison, judge

SECTIONS = ("What was claimed of VMamba", "Models", "Whole-image and patch attacks", "Corruptions", "Through which part of the scan",
            "Information lost", "The scan's order", "Where a disturbance hurts", "One image through every probe",
            "What could not be run, and why", "How it was made")
FOUND = ["seen", "too little to say", "seen", "not seen", "seen", "seen"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return reports.read_study(fake_study.write(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def text(study):
    return reports.render_study(study, title="Two <kinds>", commands=["make study"])


def test_every_section_stands_on_the_page(study, text):
    page = Page(text)
    words = " ".join(" ".join(page.text).split())
    assert page.open == [] and all(page.alts)
    assert [words.index(name) for name in SECTIONS] == sorted(words.index(name) for name in SECTIONS)
    for expected in ("Two <kinds>", "FGSM, L\u221e 1/255", "Patch-Fool, 2 patches", "42.0 %", "fog", "scan: snake", "make study", "0.10.2", "abcdef",
                     "no ImageNet-A folder given", "it has no selective scan", "ValueError: <fog> too thick", "no checkpoint here",
                     "\u221230.0 points a step", "within \u00b13 points", "120,000", "failed"):
        assert expected in words, expected
    assert text.count("<svg ") == 9 and "Other images" not in words  # no cell of a shift ran
    assert page.sources and all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    assert all((study.folder / link).is_file() for link in page.links) and len(set(page.links)) == 1 + len(study.index["cells"])


def test_the_page_is_the_same_every_time(study, text):
    assert reports.render_study(study, title="Two <kinds>", commands=["make study"]) == text


def test_a_study_of_a_clean_probe_alone_makes_a_page(tmp_path):
    study = reports.read_study(fake_study.write(tmp_path / "s", {"clean": fake_study.PROBES["clean"]}))
    page = Page(reports.render_study(study))
    assert page.open == [] and {claim.verdict for _, claims in study.claims for claim in claims} == {"too little to say"}


def test_a_folder_without_a_study_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no study.json: run `python -m experiments.study"):
        reports.read_study(tmp_path)


def test_the_terminal_has_verdicts_and_table(study):
    lines = reports.study_text(study).splitlines()
    assert lines[1].split()[:3] == ["vmamba_s", "95.0", "%"] and lines[-1] == "cells: 43 done, 8 not applicable, 1 failed"
    assert [claim.verdict for _, claims in study.claims for claim in claims] == FOUND


def test_models_are_compared_image_by_image(study):
    stronger = study.claims[0][1][0]
    assert [c.label for c in stronger.comparisons][:2] == ["FGSM, L\u221e 1/255: vmamba_s less swin", "Patch-Fool, 2 patches: vmamba_s less swin"]
    assert [round(c.difference, 6) for c in stronger.comparisons] == [0.2, 0.2] + [0.22, 0.22] * (len(stronger.comparisons) == 4)
    assert study_claims.pairs(study) == [("vmamba_s", "swin"), ("vmamba_l", "swin")] and study_claims.sizes(study) == [("vmamba_s", "vmamba_l")]


def test_a_probe_that_breaks_both_is_left_out(tmp_path):
    folder = fake_study.write(tmp_path / "s")
    for i in range(len(fake_study.MODELS)):
        file = folder / f"cells/fgsm-{i}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rows": [fake_study.row(10 - 2 * i)]}))
    stronger = reports.read_study(folder).claims[0][1][0]
    assert {c.label.split(":")[0] for c in stronger.comparisons} == {"Patch-Fool, 2 patches"}


def test_an_attack_that_breaks_little_tells_nothing_of_gradients(tmp_path):
    folder = fake_study.write(tmp_path / "s")
    for i in range(2):
        file = folder / f"cells/components-{i}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"accuracy": 0.93}))
    through = reports.read_study(folder).claims[1][1]
    assert [claim.verdict for claim in through] == ["too little to say"] * 2 and not any(claim.comparisons for claim in through)


def test_losses_need_the_clean_images(tmp_path):
    folder = fake_study.write(tmp_path / "s", {name: probe for name, probe in fake_study.PROBES.items() if name != "clean"})
    continuity = reports.read_study(folder).claims[2][1][0]
    assert continuity.verdict == "too little to say" and not continuity.comparisons


def of(*intervals):
    return [Comparison("", (low + high) / 2, low, high) for low, high in intervals]


@pytest.mark.parametrize("claimed, intervals, verdict", [
    ("above", [], "too little to say"),
    ("above", [(0.01, 0.2)], "seen"),
    ("above", [(0.01, 0.2), (-0.1, 0.1)], "seen"),
    ("above", [(0.01, 0.2), (-0.2, -0.01)], "not seen"),
    ("above", [(-0.1, 0.1)], "too little to say"),
    ("above", [(-0.02, 0.02), (-0.03, 0.01)], "not seen"),
    ("above", [(-0.02, 0.02), (-0.1, 0.01)], "too little to say"),
    ("below", [(-0.2, -0.01), (-0.1, 0.1)], "seen"),
    ("below", [(0.01, 0.2)], "not seen"),
    ("not above", [(-0.2, 0.02)], "seen"),
    ("not above", [(-0.2, 0.1)], "too little to say"),
    ("not above", [(0.01, 0.1)], "not seen"),
    ("not above", [(0.01, 0.1), (-0.2, -0.1)], "not seen"),
])
def test_the_rule(claimed, intervals, verdict):
    assert judge(of(*intervals), claimed, 0.03) == verdict


def test_packed_verdicts_come_back():
    right = np.random.default_rng(0).random(13) < 0.5
    assert study_claims.right({"right": np.packbits(right).tobytes().hex(), "examples": 13}).tolist() == right.astype(int).tolist()
