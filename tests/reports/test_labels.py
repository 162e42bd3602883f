"""Names that promise no more than was done: departures from a protocol, intervals, bold figures."""
import dataclasses
import json

import pytest

from tests.helpers import fake_runs, fake_study
from tests.helpers.html_page import Page
from vmamba_jax import attacks, reports
from vmamba_jax.reports import labels, tables
from vmamba_jax.reports.study import tables as study_tables


@pytest.mark.parametrize("options, label", [
    ({"name": "autoattack", "eps": 0.1}, "AutoAttack standard"),
    ({"name": "autoattack", "eps": 0.1, "steps": 20, "queries": 200}, "AutoAttack standard, 20 steps, 200 queries"),
    ({"name": "autoattack", "eps": 0.1, "n_targets": 4}, "AutoAttack standard, 4 target classes"),
    ({"name": "autoattack", "eps": 0.1, "version": "rand", "eot": 5}, "AutoAttack rand, 5 gradients averaged"),
    ({"name": "autoattack", "eps": 0.1, "eot": 5}, "AutoAttack standard"),  # only version rand uses it
    ({"name": "autoattack", "eps": 0.1, "bounds": (-1.0, 1.0)}, "AutoAttack standard, pixels in [-1, 1]"),
    ({"name": "pgd", "eps": 0.1, "steps": 20, "restarts": 5}, "PGD-20, 5 restarts"),
    ({"name": "pgd", "eps": 0.1, "steps": 20, "random_start": False}, "PGD-20, no random start"),
    ({"name": "pgd", "eps": 0.1, "steps": 20, "loss": "margin"}, "PGD-20, margin loss"),
    ({"name": "apgd", "eps": 0.1, "loss": "dlr_targeted", "n_targets": 3}, "APGD-100, dlr_targeted loss, 3 target classes"),
    ({"name": "square", "eps": 0.1, "queries": 200}, "Square, 200 queries"), ({"name": "square", "eps": 0.1}, "Square"),
    ({"name": "fab", "eps": 0.1, "steps": 7, "n_targets": 3}, "FAB-7, 3 target classes"), ({"name": "fgsm", "eps": 0.1}, "FGSM")])
def test_departures_are_in_the_label(options, label):
    attack = attacks.create(**options)
    assert labels.attack_label(attack.settings) == label == labels.attack_label(json.loads(json.dumps(attack.settings)))
    assert labels.attack_label(dict(options)) in (label, label.replace("-100", ""))


def test_published_values_are_the_attacks_defaults():
    for name, settings in labels.PROTOCOLS.items():
        attack = attacks.create(name, eps=0.1, **({"steps": 10} if name == "pgd" else {}))
        assert {field: attack.settings[field] for field in settings if field in attack.settings} == \
            {field: value for field, value in settings.items() if field in attack.settings}, name
    assert {field.name: field.default for field in dataclasses.fields(attacks.PatchFool)}["steps"] == study_tables.PATCH_FOOL_STEPS


def test_label_of_an_older_file_comes_from_its_settings(tmp_path):
    """In the table, on the page and in the terminal."""
    settings = attacks.autoattack(0.2, steps=20, queries=200).settings
    folder = fake_runs.write(tmp_path, "pgd_at")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["attacks"]["autoattack"] = evaluation["attacks"]["pgd"] | {"label": "AutoAttack standard", "attack": settings}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    run, label = reports.read_run(folder), "AutoAttack standard, 20 steps, 200 queries, L\u221e 0.2"
    assert label in tables.text([run]) and label in tables.accuracy([run])[0] and label in reports.render([run], title="t")
    probes = {"clean": {"kind": "clean"}, "auto": {"kind": "attack", "attack": {"name": "autoattack", "eps": 1 / 255, "steps": 20, "queries": 200}},
              "patch_fool_1": {"kind": "attack", "attack": {"name": "patch_fool", "patches": 1, "steps": 50}}}
    study = reports.read_study(fake_study.write(tmp_path / "study", probes))
    assert study.title("auto") == "AutoAttack standard, 20 steps, 200 queries, L\u221e 1/255" and study.title("patch_fool_1") == "Patch-Fool, 1 patch, 50 steps"


def test_intervals_are_in_brackets(tmp_path):
    """An accuracy near 0 or 1 has an interval that is not symmetric."""
    run = reports.read_run(fake_runs.write(tmp_path, "standard"))
    [(_, cells)] = tables.accuracy([run])[1]
    assert cells[0]["high"] - cells[0]["value"] < cells[0]["value"] - cells[0]["low"]
    words = " ".join(" ".join(Page(reports.render([run], title="t")).text).split())
    assert "98.1 % [96.0, 99.1]" in words and "\u00b1" not in words


def test_bold_needs_a_paired_interval_that_excludes_0(tmp_path):
    """190 of 200 images are no more than 189; 84 are no more than 80, and more than 40."""
    folder = fake_study.write(tmp_path / "s")
    def bold(probe):
        labels, [(_, cells)] = study_tables.accuracies(reports.read_study(folder), [probe])
        return [label for label, cell in zip(labels, cells, strict=True) if cell and cell["best"]]

    assert bold("clean") == [] and bold("fgsm") == [] and "<b>42.0 %</b>" not in reports.render_study(reports.read_study(folder))
    file = folder / "cells" / "fgsm-1.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rows": [fake_study.row(110)]}))
    assert bold("fgsm") == ["vmamba_l"] and "<b>55.0 %</b>" in reports.render_study(reports.read_study(folder))
    assert bold("patch_drop_random") == []  # two models are equal
