"""The page of attacks at equal budgets, from made-up scores: means, claims over seeds with their signs, the page and its tables."""
import json

import pytest

from tests.helpers.html_page import Page
from vmamba_jax import reports
from vmamba_jax.reports import attack_quality

DLR, PM, PMA = "APGD, DLR", "APGD, probability margin", "PMA"


def cell(model, seed, budget):
    """PM is 3 points more optimal than DLR, with lower robust accuracy; PMA is as good as DLR."""
    score = lambda optimality, robust: {"optimality": optimality + 0.1 * (model == "b"), "robust_accuracy": robust}
    return {"model": model, "seed": seed, "budget": budget, "accuracy": 0.9,
            "attacks": {DLR: score(0.80, 0.50), PM: score(0.83 + 0.001 * seed, 0.48), PMA: score(0.80 + 0.001 * seed, 0.50)}}


@pytest.fixture(scope="module")
def found():
    return {"config": {"budgets": [20, 60], "seeds": [0, 1, 2], "models": {"a": {}, "b": {}}, "eps": 0.2, "radii": [0.1, 0.2], "margin": 0.01},
            "command": "python -m experiments.attack_quality --workdir runs/q", "versions": {"jax": "0.10.2"}, "commit": "0123abc", "examples": 100,
            "device": "cpu x 2", "seconds": 3.0, "cells": [cell(m, s, b) for m in "ab" for s in range(3) for b in (20, 60)]}


def test_values(found):
    assert attack_quality.values(found, 20, DLR, "optimality") == {s: pytest.approx(0.85) for s in range(3)}
    assert attack_quality.values(found, 20, DLR, "optimality", "b") == {s: pytest.approx(0.9) for s in range(3)}
    columns, rows = attack_quality.score_rows(found)
    assert columns[1:5] == ["a, local, 20 passes", "b, local, 20 passes", "global, 20 passes", "robust accuracy, 20 passes"]
    assert rows[0] == [DLR, "80.0", "90.0", "85.0", "50.0"] + ["80.0", "90.0", "85.0", "50.0"]


def test_claims(found):
    """Both measures are positive where the claimed attack is stronger; attacks that were not run have no claim."""
    by = {(row["sentence"], row["budget"], row["measure"]): row for row in attack_quality.judged(found)}
    stronger = "APGD with the probability margin is stronger than with DLR"
    assert {row[0] for row in by} == {stronger, "PMA is stronger than APGD with DLR"} and len(by) == 8
    for measure, mean in (("optimality", 0.031), ("robust accuracy", 0.02)):
        assert by[stronger, 20, measure]["mean"] == pytest.approx(mean) and by[stronger, 20, measure]["verdict"] == "seen"
    assert by["PMA is stronger than APGD with DLR", 60, "robust accuracy"]["verdict"] == "not seen"


def test_page(found, tmp_path):
    (tmp_path / "attack_quality.json").write_text(json.dumps(found))
    path = reports.write_attack_quality(tmp_path)
    page = Page(path.read_text())
    assert page.open == [] and "+3.1" in path.read_text() and "runs/q" in path.read_text()
    text = (tmp_path / "attack_quality.md").read_text()
    assert text.count("\n| ") == 13 - 1 and "| seen |" in text
