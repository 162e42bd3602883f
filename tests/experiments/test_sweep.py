"""Sweeps: which runs a config describes, what happens to each of them, and the files that result."""
import functools
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from configs import digits, digits_sweep, sweeps
from experiments import sweep
from experiments.common import cli, results
from experiments.sweeps import display, plan, records
from tests.helpers import fake_sweep
from vmamba_jax import evaluation, reports, training

ROOT = pathlib.Path(__file__).parent.parent.parent
RUN_FILES = {"config.json", "metrics.jsonl", "results.json", "training.html", "evaluation.json", "report.html", "run.json"}
SWEEP_FILES = {"sweep.json", "sweep.html", "summary.csv", "summary.md", "summary.tex"}
NAMES = [f"{group}/seed_{seed}" for seed in range(2) for group in ("standard", "pgd_at")]
fake = functools.partial(sweep.run, train=fake_sweep.train, evaluate=fake_sweep.evaluate, progress=False)


def calls(workdir):
    """{run: how often it was trained}."""
    return {path.parent.relative_to(workdir).as_posix(): path.read_text().count("train") for path in workdir.glob("*/*/calls.txt")}


def failing(names, error):
    """A stand-in for training that raises `error` for some runs."""
    def train(config, folder, *, progress=True):
        if f"{folder.parent.name}/{folder.name}" in names:
            raise error
        fake_sweep.train(config, folder)
    return train


def process(workdir, behavior, value):
    code = f"from tests.helpers import fake_sweep; fake_sweep.main({str(workdir)!r}, {behavior!r}, {value!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def no_pages(monkeypatch):
    """Without drawing, which takes most of the time of a sweep with stand-ins."""
    monkeypatch.setattr(reports, "write", lambda path, *runs, **options: path.write_text(""))
    monkeypatch.setattr(reports, "write_sweep", lambda folder, *sweep, **options: None)


# Plan

def test_runs_and_seeds_in_order():
    planned = plan.expand(fake_sweep.plan())
    assert [each.name for each in planned] == NAMES
    assert [each.config.seed for each in planned] == [0, 0, 1, 1]
    assert planned[0].config.objective.to_dict() == digits.get_config("objective=standard").objective.to_dict()
    assert planned[1].config.to_dict() == digits.get_config("objective=pgd_at").to_dict()


def test_no_seeds_leave_the_base_seed():
    base = digits.get_config()
    base.seed = 7
    planned = plan.expand(sweeps.sweep(base, runs={"a": {}, "b": {"epochs": 3}}))
    assert [(each.name, each.seed, each.config.epochs) for each in planned] == [("a", 7, 30), ("b", 7, 3)]


def test_product_of_axes():
    axes = {"depth": {"shallow": {}, "deep": {"model": {"overrides": {"depths": (2, 2)}}}},
            "decay": {"field": "optimizer.weight_decay", "values": (0.0, 0.5)}}
    planned = plan.expand(sweeps.sweep(digits.get_config(), axes=axes))
    assert [each.name for each in planned] == [f"{depth}-weight_decay={decay}" for depth in ("shallow", "deep") for decay in (0.0, 0.5)]
    assert planned[3].axes == {"depth": "deep", "decay": "weight_decay=0.5"}
    last = planned[3].config
    assert last.model.overrides.depths == (2, 2) and last.model.overrides.dims == (32, 64) and last.optimizer.weight_decay == 0.5
    assert planned[0].config.optimizer.weight_decay == 0.0 and planned[0].config.optimizer.clip_norm == 1.0


def test_section_of_another_name_is_replaced():
    """A field of the old method does not reach the new one; a section of the same name keeps its other fields."""
    config = digits.get_config("objective=pgd_at")
    plan.apply(config, {"objective": {"attack": {"steps": 9}}}, "config.runs.x")
    assert config.objective.attack.steps == 9 and config.objective.attack.eps == 0.2
    plan.apply(config, {"objective": {"name": "standard", "label_smoothing": 0.1}}, "config.runs.x")
    assert config.objective.to_dict() == {"name": "standard", "label_smoothing": 0.1}


@pytest.mark.parametrize("options, message", [
    ({"runs": {"a": {"epoch": 3}}}, r"config\.runs\.a\.epoch: unknown field, expected one of .*epochs"),
    ({"runs": {"a": {"optimizer": {"decay": 3}}}}, r"config\.runs\.a\.optimizer\.decay: unknown field, expected one of .*weight_decay"),
    ({"runs": {"a": {"epochs": "many"}}}, r"config\.runs\.a\.epochs='many'"),
    ({"runs": {"a": {"optimizer": 3}}}, r"config\.runs\.a\.optimizer=3: expected a dict"),
    ({"runs": {"a": 3}}, r"config\.runs\.a=3: expected a dict"),
    ({"runs": {"a/b": {}}}, r"name 'a/b': expected letters"),
    ({}, r"config\.runs and config\.axes: expected exactly one"),
    ({"runs": {"a": {}}, "axes": {"b": {"c": {}}}}, r"config\.runs and config\.axes: expected exactly one"),
    ({"runs": {"a": {}}, "seeds": (1, 1)}, r"config\.seeds=\(1, 1\): expected different whole numbers"),
    ({"runs": {"a": {}}, "seeds": (0.5,)}, r"config\.seeds=\(0\.5,\)"),
    ({"runs": {"a": {}}, "control": "b"}, r"config\.control='b': expected one of a"),
    ({"runs": {"a": {}}, "margin": -1.0}, r"config\.margin=-1\.0"),
    ({"axes": {"b": (1, 2)}}, r"config\.axes\.b=\(1, 2\): expected {name: changes}"),
    ({"axes": {"b": {"field": "epochs", "values": ()}}}, r"config\.axes\.b\.values: expected at least one"),
    ({"axes": {"b": {"field": "epochs", "values": (1, 1)}}}, r"config\.axes\.b\.values: 1 is repeated"),
    ({"axes": {"b": {"field": "epoch", "values": (1,)}}}, r"config\.axes\.b\.epoch=1\.epoch: unknown field"),
    ({"axes": {"b": {"x-y": {}, "x": {}}, "c": {"z": {}, "y-z": {}}}}, r"two groups have the name 'x-y-z'"),
    ({"runs": {"a": {}}, "claims": (("s", "a", "b", "above"),)}, r"config\.claims\[0\]=.*groups of the sweep"),
    ({"runs": {"a": {}}, "claims": (("s", "a", "a", "below"),)}, r"config\.claims\[0\]="),
])
def test_bad_configs_are_refused(options, message):
    with pytest.raises(cli.ConfigError, match=message):
        plan.expand(sweeps.sweep(digits.get_config(), **options))


def test_training_config_is_refused():
    with pytest.raises(cli.ConfigError, match=r"config\.base is missing: expected a sweep's config"):
        plan.expand(digits.get_config())


def test_committed_sweep():
    assert len(plan.expand(digits_sweep.get_config())) == 6 and [each.name for each in plan.expand(digits_sweep.get_config("seeds=0"))] == ["standard", "pgd_at"]
    with pytest.raises(ValueError, match="seeds=-1: expected at least 0"):
        digits_sweep.get_config("seeds=-1")


def test_documented_sweep():
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(), re.DOTALL)[1]
    scope = {}
    exec(code, scope)
    planned = plan.expand(scope["get_config"]())
    assert [each.name for each in planned[:3]] == ["at/seed_0", "at_wide/seed_0", "trades/seed_0"] and len(planned) == 9
    assert planned[1].config.model.overrides.dims == (64, 128) and planned[2].config.objective.beta == 6.0


# Runs, with stand-ins for training

def test_finished_runs_are_not_repeated(tmp_path):
    first = fake(fake_sweep.plan(), tmp_path)
    assert [record["status"] for record in first.values()] == ["done"] * 4 and list(first) == NAMES
    page = (tmp_path / "sweep.html").read_text()
    assert fake(fake_sweep.plan(), tmp_path) == first and calls(tmp_path) == dict.fromkeys(NAMES, 1)
    assert (tmp_path / "sweep.html").read_text() == page
    assert len(fake(fake_sweep.plan(seeds=(0, 1, 2)), tmp_path)) == 6 and list(calls(tmp_path).values()) == [1] * 6


@pytest.mark.usefixtures("no_pages")
def test_finished_run_with_changed_results_is_repeated(tmp_path):
    fake(fake_sweep.plan(), tmp_path)
    (tmp_path / "pgd_at/seed_1/evaluation.json").unlink()
    fake(fake_sweep.plan(), tmp_path)
    assert calls(tmp_path) == dict.fromkeys(NAMES, 1) | {"pgd_at/seed_1": 2} and (tmp_path / "pgd_at/seed_1/evaluation.json").is_file()


@pytest.mark.usefixtures("no_pages")
@pytest.mark.parametrize("error, reason", [(ValueError("loss is\nnan"), "ValueError: loss is nan"), (cli.RunError("disk full"), "disk full")])
def test_reason_of_a_failed_run(tmp_path, error, reason):
    assert fake(fake_sweep.plan(), tmp_path, train=failing({NAMES[1]}, error))[NAMES[1]]["reason"] == reason


def test_failed_run_is_recorded_and_the_others_go_on(tmp_path):
    reason = "ValueError: loss is nan"
    found = fake(fake_sweep.plan(), tmp_path, train=failing({NAMES[1], NAMES[3]}, ValueError("loss is\nnan")))
    assert [found[name]["status"] for name in NAMES] == ["done", "failed", "done", "failed"]
    assert found[NAMES[1]]["reason"] == reason and "Traceback" in (tmp_path / NAMES[1] / "error.txt").read_text()
    assert f"{NAMES[1]}</td><td>failed</td><td class=\"wrap\">{reason}" in (tmp_path / "sweep.html").read_text()
    again = fake(fake_sweep.plan(), tmp_path)
    assert {record["status"] for record in again.values()} == {"done"} and calls(tmp_path) == dict.fromkeys(NAMES, 1)
    assert not (tmp_path / NAMES[1] / "error.txt").exists() and "without results" not in (tmp_path / "sweep.html").read_text()


@pytest.mark.usefixtures("no_pages")
def test_failing_run_is_tried_once_per_start(tmp_path):
    tried = []
    def train(config, folder, *, progress=True):
        tried.append(folder)
        raise ValueError("no")
    for starts in (1, 2):
        found = fake(fake_sweep.plan(seeds=(0,)), tmp_path, train=train)
        assert len(tried) == 2 * starts and {record["attempts"] for record in found.values()} == {starts}


@pytest.mark.usefixtures("no_pages")
def test_exit_status_of_failed_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "run", functools.partial(sweep.run, train=failing({NAMES[0]}, ValueError("no")), evaluate=fake_sweep.evaluate, progress=False))
    with pytest.raises(SystemExit) as stop:
        sweep.main(fake_sweep.plan(), tmp_path, reevaluate=False)
    said = capsys.readouterr()
    assert stop.value.code == 1 and f"1 of 4 runs failed: {NAMES[0]}" in said.err and "runs: 1 failed, 3 done" in said.out


@pytest.mark.usefixtures("no_pages")
def test_a_sweep_in_which_no_run_was_done_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run", functools.partial(sweep.run, train=failing(set(NAMES), ValueError("no")), evaluate=fake_sweep.evaluate, progress=False))
    with pytest.raises(cli.RunError, match=f"none of the 4 runs was done: {NAMES[0]}: ValueError: no") as error:
        sweep.main(fake_sweep.plan(), tmp_path, reevaluate=False)
    assert len(error.value.details) == 3


@pytest.mark.usefixtures("no_pages")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), training.Stopped("stopped by SIGTERM")], ids=["interrupt", "signal"])
def test_stopped_sweep_resumes(tmp_path, error):
    with pytest.raises(type(error)):
        fake(fake_sweep.plan(), tmp_path, train=failing({NAMES[2]}, error))
    assert records.read(tmp_path / NAMES[2])["status"] == "stopped" and list(calls(tmp_path)) and not (tmp_path / NAMES[3]).exists()
    assert {record["status"] for record in fake(fake_sweep.plan(), tmp_path).values()} == {"done"} and calls(tmp_path) == dict.fromkeys(NAMES, 1)


@pytest.mark.usefixtures("no_pages")
def test_changed_config_is_refused_with_runs_and_fields(tmp_path):
    fake(fake_sweep.plan(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    config = fake_sweep.plan()
    config.base.epochs, config.base.evaluation.seed = 31, 5
    with pytest.raises(cli.ConfigError, match="holds runs of another config") as error:
        fake(config, tmp_path)
    assert len(error.value.details) == 9 and error.value.details[1].split() == ["standard/seed_0", "epochs", "30", "31"]
    assert error.value.details[2].split() == ["standard/seed_0", "evaluation.seed", "0", "5"] and "--reevaluate" not in str(error.value)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_pages")
def test_reevaluation_needs_its_flag(tmp_path):
    fake(fake_sweep.plan(), tmp_path)
    config = fake_sweep.plan()
    config.base.evaluation.attacks.pgd.eps = 0.1
    with pytest.raises(cli.ConfigError, match="--reevaluate evaluates these runs again"):
        fake(config, tmp_path)
    fake(config, tmp_path, reevaluate=True)
    assert set(reports.read_sweep(tmp_path).values) == {"clean", "PGD-20, 3 restarts, L\u221e 0.1"}
    assert fake(config, tmp_path) and calls(tmp_path) == dict.fromkeys(NAMES, 2)  # the stand-in counts calls that found their results


def test_interrupted_run_of_another_config_is_refused(tmp_path):
    (tmp_path / NAMES[0] / "checkpoints").mkdir(parents=True)
    config = plan.expand(fake_sweep.plan())[0].config
    config.batch_size = 32
    (tmp_path / NAMES[0] / "config.json").write_text(config.to_json())
    with pytest.raises(cli.ConfigError) as error:
        fake(fake_sweep.plan(), tmp_path)
    assert [line.split() for line in error.value.details[1:]] == [[NAMES[0], "batch_size", "32", "64"]]


def test_joined_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.jax, "process_count", lambda: 2)
    with pytest.raises(cli.ConfigError, match="--processes=2: expected one process"):
        fake(fake_sweep.plan(), tmp_path)


@pytest.mark.slow
def test_killed_sweep_resumes(tmp_path):
    killed = process(tmp_path, "kill", 3)
    killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert [records.read(tmp_path / name).get("status") for name in NAMES] == ["done", "done", "running", None]
    assert {record["status"] for record in fake(fake_sweep.plan(), tmp_path).values()} == {"done"}
    assert calls(tmp_path) == dict.fromkeys(NAMES, 1) | {NAMES[2]: 2}


@pytest.mark.slow
def test_two_processes_share_a_sweep(tmp_path):
    both = [process(tmp_path, "sleep", 2.0) for _ in range(2)]
    done = [int(each.communicate(timeout=600)[0]) for each in both]
    assert [each.returncode for each in both] == [0, 0] and sum(done) == 4 and min(done) > 0
    assert calls(tmp_path) == dict.fromkeys(NAMES, 1)
    assert all(run.done for run in reports.read_sweep(tmp_path).runs) and "4 of 4 runs done" in (tmp_path / "sweep.html").read_text()


# Progress display

def shown(workdir):
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(display.Display(plan.expand(fake_sweep.plan()), workdir, shown=False).render())
    return console.export_text()


@pytest.mark.usefixtures("no_pages")
def test_display(tmp_path):
    fake(fake_sweep.plan(), tmp_path, train=failing({NAMES[1]}, ValueError("no")))
    running = plan.expand(fake_sweep.plan())[2]
    for name in ("results.json", "evaluation.json"):
        (tmp_path / running.name / name).unlink()
    records.begin(running, tmp_path / running.name)
    with open(tmp_path / running.name / "metrics.jsonl", "a") as file:
        file.write('{"step": 50, "lo')
    text = shown(tmp_path)
    assert "2 of 4 runs done" in text and "1 running" in text and "1 failed" in text and "0:00:0" in text and " left" in text
    assert f"{running.name}" in text and "training, step 40, loss 0.311, clean " in text and f":{os.getpid()}" in text


def test_time_left():
    done, waiting = {"status": "done", "seconds": 100.0}, {}
    running = lambda since: {"status": "running", "time": since}
    assert display.time_left([waiting, running(0)], now=5) is None
    assert display.time_left([done, {"status": "done", "seconds": 200.0}, waiting, waiting], now=0) == 300
    assert display.time_left([done, waiting, waiting, running(0), running(-150)], now=50) == pytest.approx((50 + 0 + 200) / 2)
    assert display.clock(3725.4) == "1:02:05"


@pytest.mark.parametrize("files, words", [({}, "starting: reads its data and compiles"), ({"metrics.jsonl": '{"step": 3, "loss": 0.5}\n{"st'}, "training, step 3, loss 0.500"),
                                          ({"results.json": "{}"}, "evaluating")])
def test_activity(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert display.activity(tmp_path) == words


# Real training

def tiny(**options):
    """A sweep of two objectives and two seeds that trains for one epoch."""
    config = fake_sweep.plan(**options)
    base = config.base
    base.epochs, base.batch_size = 1, 256
    base.model.overrides.update(dims=(8,), depths=(1,), patch_size=4)
    base.objective.attack.steps = base.validation.attack.steps = config.runs.standard.validation.attack.steps = 1
    base.validation.every_epochs = config.runs.standard.validation.every_epochs = 1
    base.evaluation.update(limit=32, batch_size=32)
    base.evaluation.attacks = {"pgd": {**base.evaluation.attacks.pgd, "steps": 1, "restarts": 1}}
    base.evaluation.curve.radii = (0.0, 0.2)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep")
    return workdir, sweep.run(tiny(), workdir, progress=False)


@pytest.mark.slow
def test_real_sweep_files(finished):
    workdir, found = finished
    assert [record["status"] for record in found.values()] == ["done"] * 4, found
    assert SWEEP_FILES <= {path.name for path in workdir.iterdir()}
    assert all(RUN_FILES <= {path.name for path in (workdir / name).iterdir()} for name in found)
    saved = [json.loads((workdir / name / "results.json").read_text()) for name in found]
    assert [result["config"]["seed"] for result in saved] == [0, 0, 1, 1] and len({result["sha256"] for result in saved}) == 4
    assert [result["config"]["objective"]["name"] for result in saved] == ["standard", "pgd_at"] * 2
    page = (workdir / "sweep.html").read_text()
    assert "4 of 4 runs done" in page and all(f'href="{name}/report.html"' in page for name in found) and page.count("<svg ") == 2


@pytest.mark.slow
def test_real_sweep_is_not_repeated(finished, monkeypatch):
    workdir, found = finished
    def forbidden(*args, **options):
        raise AssertionError("this is done already")
    monkeypatch.setattr(training, "train", forbidden)
    monkeypatch.setattr(evaluation, "robust_accuracy", forbidden)
    assert sweep.run(tiny(), workdir, progress=False) == found


@pytest.mark.slow
def test_real_sweep_killed_repeatedly(finished, tmp_path):
    """Kill the program three times, each time some seconds after its first file; then let it finish."""
    workdir, _ = finished
    code = ("from tests.experiments import test_sweep as t; from experiments import sweep; import sys; "
            "found = sweep.run(t.tiny(), sys.argv[1], progress=False); assert {r['status'] for r in found.values()} == {'done'}, found")
    start = lambda: subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    for seconds in (2.0, 9.0, 17.0):
        child, since = start(), time.monotonic()
        while not (tmp_path / "sweep.json").exists() or time.monotonic() - since < 3:
            time.sleep(0.1)
        time.sleep(seconds)
        child.kill()
        child.wait()
    assert start().wait(timeout=600) == 0
    for name in ("standard/seed_0", "pgd_at/seed_0", "standard/seed_1", "pgd_at/seed_1"):
        same = [json.loads((folder / name / "results.json").read_text())["config"] for folder in (workdir, tmp_path)]
        assert same[0] == same[1]
        assert len(reports.read_run(tmp_path / name).metrics) == len(reports.read_run(workdir / name).metrics)


def test_run_evaluated_by_another_version_is_evaluated_again(tmp_path, monkeypatch):
    """Its training counts; a result without an identity, as of the fake runs, has no version."""
    fake(fake_sweep.plan(seeds=(0,)), tmp_path)
    [planned, *_] = plan.expand(fake_sweep.plan(seeds=(0,)))
    folder = tmp_path / planned.name
    record = records.read(folder)
    identity = results.identity(weights="", data="", settings={})
    content = json.loads((folder / "evaluation.json").read_text()) | {"identity": identity}
    (folder / "evaluation.json").write_text(json.dumps(content))
    results.save_json(folder / "run.json", record | {"files": records._digests(folder)})
    assert records.finished(planned, folder)
    monkeypatch.setattr(results, "__version__", "0.0.0")
    assert not records.finished(planned, folder)
