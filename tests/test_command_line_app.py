"""`vmamba-jax`: the programs, the shipped configs, the report, and what --help, --print and --version say."""
import functools
import json
import re

import pytest

from configs import base, fields
from tests.helpers.command_runs import run_command
from tests.helpers.forked_programs import ROOT, run_programs
from vmamba_jax import commands, version
from vmamba_jax.commands import configs, pages, programs

run = functools.partial(run_command, commands.main)
TINY = ["--config.model.overrides.dims=(8,)", "--config.optimizer.b1=0.8"]


def test_programs_through_the_command():
    train, evaluate = ["vmamba_jax", "train"], ["vmamba_jax", "evaluate"]
    found = run_programs([[*train, "--config", "digits:objective=pgd_at", *TINY, "--print"], [*train, "--config=configs/digits.py", "--help"], [*train, "--help"],
                          [*evaluate, "--version"], [*train, "--config", "nosuch", "--workdir", "x"], [*train, "--config", "digits", "--config.optimizer.lr=3"],
                          [*train, "--config", "digits", "--config.seed.low=3"]])
    printed, listed, helped, versioned, *wrong = found
    config = json.loads(printed[1])
    assert printed[0] == 0 and config["model"]["overrides"]["dims"] == [8] and config["objective"]["name"] == "pgd_at" and config["optimizer"]["b1"] == 0.8
    assert listed[0] == helped[0] == 0 and "--workdir" in helped[1] and "--helpfull" not in helped[1]
    assert re.search(r"^optimizer.b1 +float +0.9 +decay of the first moment$", listed[1], re.MULTILINE)
    assert versioned == [0, f"{version.__version__}\n"]
    for (status, output), words in zip(wrong, ("--config=nosuch: expected an existing file, or one of acceleration",
                                               "--config.optimizer.lr: unknown field 'lr'; expected one of config.optimizer: b1, b2",
                                               "--config.seed.low: unknown field 'low'; config.seed has no fields"), strict=True):
        assert status == 2 and output.startswith(f"error: {words}") and output.count("\n") == 1, output


def test_every_program_has_a_file_and_the_first_line_of_its_help_says_more():
    assert programs.folder() == ROOT
    for name in programs.PROGRAMS:
        assert (ROOT / "experiments" / f"{name}.py").is_file()


def test_folder_is_expected(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "PACKAGE", tmp_path / "vmamba_jax")
    with pytest.raises(FileNotFoundError, match="experiments and configs: expected in .*programs or "):
        programs.folder()


def test_configs(capsys):
    status, out, err = run(capsys, "configs")
    assert status == 0 and err == "" and [line.split()[0] for line in out.splitlines()] == list(configs.shipped(ROOT / "configs"))
    assert "base" not in configs.shipped(ROOT / "configs") and "digits" in configs.shipped(ROOT / "configs")
    status, out, _ = run(capsys, "configs", "digits:objective=trades")
    assert status == 0 and "scikit-learn's digits" in out and re.search(r"^objective.beta +float +6.0 +argument of the objective", out, re.MULTILINE)
    status, out, err = run(capsys, "configs", "nosuch")
    assert status == 2 and out == "" and "configs nosuch: expected one of acceleration" in err


@pytest.mark.parametrize("make", ["run", "study", "attack_quality", "analysis", "benchmark"])
def test_every_key_has_a_line(make):
    rows = list(fields.rows(getattr(base, make)()))
    assert len(rows) > 7 and [key for key, _, _, line in rows if not line] == []


def test_lines_of_deeper_keys_and_of_sweeps():
    assert fields.what("evaluation.attacks.pgd.eps") == fields.what("base.evaluation.attacks.pgd.eps") == "argument of vmamba_jax.attacks.create"
    assert fields.what("runs.a.seed") == fields.SWEEP["runs"] and fields.what("base.optimizer.b1") == fields.RUN["optimizer.b1"] and fields.what("nosuch.a") == ""


def test_labels_tell_runs_apart():
    assert pages._labels(["runs/a", "runs/b/"]) == ["a", "b"] and pages._labels(["x/seed_0", "y/seed_0"]) == ["x/seed_0", "y/seed_0"]


def test_info_and_version(capsys):
    status, out, _ = run(capsys, "info")
    assert status == 0 and re.search(rf"^vmamba_jax +{re.escape(version.__version__)}$", out, re.MULTILINE) and re.search("^scan +xla$", out, re.MULTILINE)
    assert run(capsys, "--version") == (0, f"{version.__version__}\n", "")


@pytest.mark.parametrize("args, words", [
    (["report", "nowhere"], "folder=nowhere: expected evaluation.json in it"), (["report", "a/b", "c/b", "--label", "x"], "--label: expected 2 labels"),
    (["report", "a", "b", "--label", "x", "x"], "--label: expected different labels, got 'x' twice"), (["report"], "requires"), (["nosuch"], "Unknown command")])
def test_wrong_words(capsys, args, words):
    status, out, err = run(capsys, *args)
    assert status == 2 and out == "" and words in err and err.count("\n") == 1
