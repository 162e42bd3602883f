"""Attacks at equal budgets: that no attack exceeds its budget, what a cell's scores are, and the whole program on tiny models (slow)."""
import json

import numpy as np
import pytest

from configs import attack_quality
from experiments import attack_quality as program
from experiments.common import cli
from vmamba_jax.attacks import ATTACKS

EPS = 0.1


@pytest.mark.parametrize("budget", [20, 50, 120])
def test_budgets(budget):
    """Gradient passes per image from each attack's own fields; every attack but FGSM uses more than two thirds of the budget."""
    def passes(name, attack):
        targets = getattr(attack, "n_targets", None) or 1
        match attack.name:
            case "fgsm":
                return 1
            case "pgd":
                return attack.passes.forward_backward
            case "apgd":
                return targets * (attack.steps + 1) + (program.CANDIDATES if attack.targets == "malt" else 0)
            case "pma":
                return 2 * (attack.steps + 1)
            case "fab":
                return targets * attack.steps * 1.5
            case "square":
                return (attack.queries + 1) / 2
    made = {name: make(EPS) for name, make in program.candidates(budget).items()}
    assert {attack.name for attack in made.values()} <= set(ATTACKS) and all(attack.eps == EPS for attack in made.values())
    used = {name: passes(name, attack) for name, attack in made.items()}
    assert max(used.values()) <= budget and min(x for name, x in used.items() if name != "FGSM") > 2 / 3 * budget, used
    with pytest.raises(cli.ConfigError, match="expected at least 17 passes, which the targeted attacks need, not 16"):
        program.candidates(16)


def packed(*rows):
    return [np.packbits(np.array(row, bool)).tobytes().hex() for row in rows]


def test_scores():
    """The best distances are those of all attacks and budgets on the same model and seed."""
    config = attack_quality.get_config()
    config.radii, config.eps = (0.1, 0.2), 0.1
    weak, strong = packed([0, 0, 0, 1], [1, 0, 0, 1]), packed([1, 0, 0, 1], [1, 1, 0, 1])
    cells = [{"model": "a", "seed": 0, "budget": b, "correct": [1, 1, 1, 0], "broken": {"x": rows}} for b, rows in ((20, weak), (60, strong))]
    found = [program._scored(cell, cells, config) for cell in cells]
    assert [cell["attacks"]["x"]["robust_accuracy"] for cell in found] == [0.75, 0.5] and found[0]["accuracy"] == 0.75
    assert found[1]["attacks"]["x"]["optimality"] == 1.0
    assert found[0]["attacks"]["x"]["optimality"] == pytest.approx(1 - (0.15 - 0.125) / (0.75 * 0.2 - 0.125))


@pytest.mark.parametrize("field,value,words", [
    ("radii", (0.2, 0.1), r"config.radii=\(0.2, 0.1\): expected ascending"), ("radii", (), "config.radii="), ("eps", 0.17, "config.eps=0.17: expected one of"),
    ("budgets", (5,), "expected at least 17 passes"), ("seeds", (), "config.seeds="), ("limit", -1, "config.limit=-1"),
    ("models", {"a": {"name": "vmamba_huge", "overrides": {}}}, "config.models.a: model='vmamba_huge'")])
def test_wrong_config(field, value, words):
    config = attack_quality.get_config()
    del config[field]
    config[field] = value
    with pytest.raises(cli.ConfigError, match=words):
        program.check(config)


@pytest.mark.slow
def test_program(tmp_path, monkeypatch):
    """One epoch of a perceptron, one seed: every attack scored; the same command measures nothing again, and --page draws the page from the JSON."""
    config = attack_quality.get_config()
    config.models = {"perceptron": {"name": "perceptron", "overrides": {}}}
    config.seeds, config.epochs, config.limit, config.radii, config.budgets = (0,), 3, 20, (0.1, 0.2), (20,)
    found = program.run(config, tmp_path, progress=False, command="the command")
    [cell] = found["cells"]
    assert list(cell["attacks"]) == list(program.candidates(20)) and found["examples"] == 20
    assert all(0 <= score["optimality"] <= 1 and 0 <= score["robust_accuracy"] <= cell["accuracy"] for score in cell["attacks"].values())
    assert max(score["optimality"] for score in cell["attacks"].values()) > 0.5
    monkeypatch.setattr(program, "_attacked", None)
    again = program.run(config, tmp_path, progress=False)
    assert again["cells"] == found["cells"] == json.loads((tmp_path / "attack_quality.json").read_text())["cells"]
    program.main(config, str(tmp_path), page=True)
    assert (tmp_path / "attack_quality.html").is_file() and "MALT" in (tmp_path / "attack_quality.md").read_text()
