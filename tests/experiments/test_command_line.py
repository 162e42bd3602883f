"""The programs' command lines; all commands are children of one process, since starting Python with JAX takes seconds."""
import subprocess

import pytest

from tests.helpers.forked_programs import run_programs
from vmamba_jax import training

DIGITS = "configs/digits.py"
WRONG = {
    "experiments.train": [
        (["--config", "configs/nosuch.py:objective=standard", "--config.epochs=3"], "--config=configs/nosuch.py: expected an existing file"),
        (["--config", DIGITS, "--config.epoch=3"], "unknown field 'epoch'"),
        (["--config", DIGITS, "--config.epochs=three"], "--config.epochs=three"),
        (["--config", DIGITS + ":objective=nosuch"], "objective='nosuch': expected one of"),
        (["--config", DIGITS, "--config.objective.attack.norm=l7"], "config.objective.attack: norm='l7'"),
        (["--config", DIGITS, "--config.model.name=nosuch"], "config.model: model='nosuch': expected one of"),
        (["--config", DIGITS, "--config.model.overrides.dims=(16,)"], "config.model: "),
        (["--config", DIGITS, "--config.model.overrides.dims=text"], "--config.model.overrides.dims=text: "),
        (["--config", DIGITS, "--config.model.overrides.depht=(1,)"], "config.model: depht=(1,): expected fields of vmamba_tiny: "),
        (["--config", DIGITS, "--config.model.overrides.dtype=float7"], "config.model: dtype='float7': expected a floating dtype"),
        (["--config", DIGITS, "--process=1"], "several hosts: coordinator_address, num_processes missing"),
        (["--config", DIGITS, "--coordinator=localhost:1", "--processes=2", "--process=1", "--join_timeout=1"],
         "process 0 was not reached within 1 s"),
        (["--config", DIGITS, "--config.epochs=0"], "config.epochs=0: expected at least 1"),
        (["--config", DIGITS, "--config.batch_size=5000"], "config.batch_size=5000"),
        (["--config", DIGITS, "--config.schedule.warmup=2.0"], "config.schedule.warmup=2.0: expected a finite number"),
        (["--config", DIGITS, "--config.validation.select=loss"], "config.validation.select='loss'"),
        (["--config", DIGITS, "extra"], "unexpected argument 'extra'"),
        (["--config", DIGITS, "--nosuch=1"], "nosuch"),
        ([], "--config: expected a value"),
    ],
    "experiments.evaluate": [
        ([], "expected a folder with config.json"),
        (["--config", DIGITS], "no checkpoint here: expected a run's folder, with checkpoints/"),
        (["--config", DIGITS, "--config.evaluation.curve.attack=nosuch"], "config.evaluation.curve.attack='nosuch': expected one of fgsm, pgd"),
        (["--config", DIGITS, "--config.evaluation.attacks.pgd.steps=0"], "config.evaluation.attacks.pgd: steps"),
        (["--config", "configs/evaluate_weights.py", "--config.weights=nosuch"], "config.weights: nosuch: No such file or folder"),
    ],
}


def test_errors_are_one_line_and_status_2(tmp_path):
    (tmp_path / "file").write_text("")
    cases = [([program, *command, "--workdir", str(tmp_path / f"{program}-{i}")], expected)
             for program, rows in WRONG.items() for i, (command, expected) in enumerate(rows)]
    cases += [(["experiments.train", "--config", DIGITS, "--workdir", str(tmp_path / folder)], expected) for folder, expected in
              (("file", "workdir="), ("file/run", "workdir="), ("taken", f"{tmp_path / 'taken'} is in use by process "))]
    with training.one_run(tmp_path / "taken"):
        found = run_programs([command for command, _ in cases])
    for (command, expected), (status, output) in zip(cases, found, strict=True):
        lines = output.strip().splitlines()
        assert status == 2 and len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], (command, status, output)


@pytest.mark.slow
def test_full_disk_is_one_line_and_the_run_resumes(tmp_path):
    """Needs permission to mount a small file system."""
    mount = lambda options: subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path], capture_output=True).returncode == 0
    if not mount("size=1200k"):
        pytest.skip("mounting is not permitted here")
    command = ["experiments.train", "--config", DIGITS + ":objective=standard", "--workdir", str(tmp_path / "run"), "--config.epochs=2",
               "--config.batch_size=256", "--config.validation.every_epochs=1", "--config.validation.attack.steps=1"]
    try:
        [[status, output]] = run_programs([command])
        last = output.strip().splitlines()[-1]
        assert status == 2 and last.startswith("error: step ") and "could not be saved" in last and "last step saved is" in last, output
        assert mount("remount,size=64m")
        [[status, output]] = run_programs([command])
        assert status == 0 and "training.html" in output, output
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
