"""The programs as a user meets them: several wrong commands in one process each, since starting Python with JAX takes seconds."""
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
# Runs each command line of a JSON list through a program's main in a forked child, and prints its status and what it said.
DRIVER = """
import contextlib, io, json, os, runpy, sys, tempfile
import jax, vmamba_jax.training, vmamba_jax.evaluation, vmamba_jax.reports, sklearn.datasets
program, commands = sys.argv[1], json.loads(sys.argv[2])
answers = []
for command in commands:
    with tempfile.TemporaryFile("w+") as said:
        if (child := os.fork()) == 0:
            os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)
            sys.argv = [program, *command]
            runpy.run_module(program, run_name="__main__", alter_sys=True)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        answers.append((status, said.read()))
print(json.dumps(answers))
"""
DIGITS = "configs/digits.py"
WRONG = {
    "experiments.train": [
        (["--config", "configs/nosuch.py:objective=standard", "--config.epochs=3"], "no config file 'configs/nosuch.py'"),
        (["--config", DIGITS, "--config.epoch=3"], "unknown field 'epoch'"),
        (["--config", DIGITS, "--config.epochs=three"], "--config.epochs=three"),
        (["--config", DIGITS + ":objective=nosuch"], "objective='nosuch' is not known"),
        (["--config", DIGITS, "--config.objective.attack.norm=l7"], "config.objective.attack: norm='l7'"),
        (["--config", DIGITS, "--config.model.name=nosuch"], "config.model: model 'nosuch'"),
        (["--config", DIGITS, "--config.model.overrides.dims=(16,)"], "config.model: "),
        (["--config", DIGITS, "--config.epochs=0"], "config.epochs=0: expected at least 1"),
        (["--config", DIGITS, "--config.batch_size=5000"], "config.batch_size=5000"),
        (["--config", DIGITS, "--config.schedule.warmup=2.0"], "config.schedule: warmup_steps"),
        (["--config", DIGITS, "--config.validation.select=loss"], "config.validation.select='loss'"),
        (["--config", DIGITS, "extra"], "unexpected argument 'extra'"),
        (["--config", DIGITS, "--nosuch=1"], "nosuch"),
        ([], "--config is needed"),
    ],
    "experiments.evaluate": [
        ([], "holds no config.json"),
        (["--config", DIGITS], "checkpoint: no checkpoints"),
        (["--config", DIGITS, "--config.evaluation.curve.attack=nosuch"], "config.evaluation.curve.attack='nosuch': expected one of fgsm, pgd"),
        (["--config", DIGITS, "--config.evaluation.attacks.pgd.steps=0"], "config.evaluation.attacks.pgd: steps"),
        (["--config", "configs/evaluate_weights.py", "--config.data.name=digits"], "config.data: data set 'digits' has no option"),
    ],
}


@pytest.mark.parametrize("program", WRONG)
def test_what_is_wrong_is_one_line_and_status_2(program, tmp_path):
    commands = [[*command, "--workdir", str(tmp_path / str(i))] for i, (command, _) in enumerate(WRONG[program])]
    done = subprocess.run([sys.executable, "-c", DRIVER, program, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for (command, expected), (status, said) in zip(WRONG[program], json.loads(done.stdout.splitlines()[-1]), strict=True):
        lines = said.strip().splitlines()
        assert status == 2 and len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], (command, status, said)
