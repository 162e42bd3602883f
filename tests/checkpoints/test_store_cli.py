"""`python -m vmamba_jax.checkpoints`: converts a file to a checkpoint with its source; errors are one line and exit status 2."""
import functools
import hashlib
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import vmamba_jax
from tests.helpers.command_runs import run_command
from tests.helpers.torch_files import Raw, write
from vmamba_jax import checkpoints
from vmamba_jax.checkpoints.__main__ import main

ROOT = pathlib.Path(__file__).parent.parent.parent
SMALL = ["--model", "vmamba_tiny", "--override", "dims=(8, 16, 24, 32)", "depths=(1, 1, 1, 1)", "--override", "num_classes=10"]
run = functools.partial(run_command, main)


@pytest.fixture(scope="module")
def state(golden):
    """The state dict of a small VMamba of the original program."""
    keys = json.loads((ROOT / "tests" / "golden" / "vmamba_t_base.json").read_text())["state_keys"]
    arrays = golden("vmamba_t_base")
    return {name: arrays[name] for name in keys}


@pytest.fixture
def weights(tmp_path, state):
    return write(tmp_path / "weights.pth", {"model": state, "epoch": 3}, "zip")


def test_convert(tmp_path, capsys, weights, state):
    status, out, err = run(capsys, "convert", weights, *SMALL, "--out", tmp_path / "made")
    assert status == 0 and err == "" and out.count("\n") == 1 and "vmamba_tiny" in out
    variables, metadata = checkpoints.load_variables(tmp_path / "made")
    expected = checkpoints.convert(vmamba_jax.create_model(metadata["model"], **metadata["overrides"]), state)
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert metadata["parameters"] == sum(x.size for x in state.values())
    assert metadata["source"] == "weights.pth" and metadata["source_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert metadata["preprocessing"] == {"range": [0, 1], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert set(metadata["versions"]) == {"vmamba_jax", "jax", "flax", "orbax-checkpoint", "numpy"}


def test_convert_overwrites_only_with_the_flag(tmp_path, capsys, weights):
    out = tmp_path / "made"
    assert run(capsys, "convert", weights, *SMALL, "--out", out)[0] == 0
    assert run(capsys, "convert", weights, *SMALL, "--out", out)[0] == 2
    assert run(capsys, "convert", weights, *SMALL, "--out", out, "--overwrite")[0] == 0


def failures(tmp_path, state):
    good, evil = write(tmp_path / "good.pth", state, "legacy"), write(tmp_path / "evil.pth", Raw(pickle.dumps(os.system, 2)[2:-1]), "zip")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(good.read_bytes()[:-5])
    bare = write(tmp_path / "bare.pth", {name: x for name, x in state.items() if "classifier" not in name} | {"extra": np.ones(2)}, "zip")
    end = ["--out", tmp_path / "made"]
    return {"No such file": ["convert", tmp_path / "none.pth", *SMALL, *end], "refused: posix.system": ["convert", evil, *SMALL, *end],
            "cut.pth: .*truncated": ["convert", cut, *SMALL, *end], "classifier.head.weight.*extra": ["convert", bare, *SMALL, *end],
            "vmamba_huge": ["convert", good, "--model", "vmamba_huge", *end], "speed": ["convert", good, *SMALL, "--override", "speed=3", *end],
            "'speed': expected key=value": ["convert", good, *SMALL, "--override", "speed", *end], "--out": ["convert", good, *SMALL],
            'Unknown command "export"': ["export", good], "evil.pth: refused": ["inspect", evil], "Is a directory": ["inspect", tmp_path],
            "not empty": ["convert", good, *SMALL, "--out", tmp_path]}


def test_failures_are_one_line(tmp_path, capsys, state):
    for message, args in failures(tmp_path, state).items():
        status, out, err = run(capsys, *args)
        assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, (args, err)
        assert re.search(message, err), (message, err)
        assert not (tmp_path / "made").exists()


def test_inspect(tmp_path, capsys):
    tree = {"model": {"layers.0.a_rather_long_name.weight": np.zeros((3, 4), np.float32), "b": np.ones(2, np.int64), "evil\x1b[31m [red]name": np.ones(())}}
    status, out, err = run(capsys, "inspect", write(tmp_path / "x.pth", tree | {"epoch": 3, "steps": [1, np.ones(5)]}, "zip"))
    assert status == 0 and err == ""
    lines = {tuple(line.split()) for line in out.splitlines()}
    assert ("model/layers.0.a_rather_long_name.weight", "(3,", "4)", "float32") in lines and ("model/b", "(2,)", "int64") in lines
    assert ("steps/1", "(5,)", "float64") in lines and "\x1b" not in out and "[red]name" in out
    assert out.rstrip().endswith("4 arrays, 20 elements, 0.000 MB; 2 other values")


def test_as_a_program(tmp_path, weights):
    """Started as its users start it, in a process of its own: no noise."""
    program = [sys.executable, "-m", "vmamba_jax.checkpoints", "convert", weights, *SMALL, "--out", "made"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    made = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "") and made.stdout.startswith("made: vmamba_tiny, ")
