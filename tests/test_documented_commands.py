"""Every command that README, docs, a config or a --help shows: its program, flags, config keys and values exist; and every program without arguments."""
import ast
import html
import importlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import ml_collections
import pytest

import vmamba_jax
import vmamba_jax.checkpoints.__main__ as checkpoint_commands
from configs import base
from experiments import attack_quality, benchmark, device_check, evaluate, study, sweep, train
from experiments.common import cli, limits
from experiments.sweeps import plan
from tests.helpers.command_runs import run_command
from tests.helpers.forked_programs import run_programs
from vmamba_jax import commands, reports

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "Makefile", *sorted(ROOT.glob("docs/**/*.md")), ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("configs/*.py")), *sorted(ROOT.glob("experiments/*.py")),
         *sorted(ROOT.glob("vmamba_jax/**/__main__.py"))]
COMMAND = re.compile(r"(?:(?:python|\$\(IN\)) -m |(?<=^    )(?=vmamba-jax ))(experiments\.\w+|vmamba_jax(?:\.checkpoints)?|vmamba-jax)(?![\w.-])"
                     r"((?:\\\n|[^\n`])*)", re.MULTILINE)
APPS = {"vmamba_jax": commands.app, "vmamba_jax.checkpoints": checkpoint_commands.app}
PARSERS = ("experiments.device_check", *APPS)
DEFAULT_CONFIG = {"experiments.benchmark": "configs/benchmark.py", "experiments.study": "configs/robustness_study.py"}
EVALUATED = "configs/digits.py"  # stands for the config of the run that `evaluate --workdir RUN` reads
CHECKS = {"experiments.train": lambda config: limits.check_run(base.complete(config)), "experiments.evaluate": lambda config: limits.check_run(base.complete(config)),
          "experiments.plan": lambda config: limits.check_run(base.complete(config)), "experiments.study": limits.check_study, "experiments.benchmark": limits.check_benchmark,
          **{f"experiments.{name}": plan.expand for name in ("sweep", "mender", "dense", "certify", "adapt")},
          "experiments.ads": lambda config: plan.expand(ml_collections.ConfigDict(config.to_dict() | {"seeds": (0,)})),
          "experiments.analyze": limits.check_analysis, "experiments.attack_quality": attack_quality.check}
SHARED_FLAGS = {"help", "print", "quiet", "config", "workdir", "coordinator", "processes", "process", "join_timeout", "cluster"}
FREE = ("overrides", "options", "attacks", "attack", "objective", "optimizer", "probes")


def documented():
    """[(page, program, arguments), ...]; placeholders in brackets and comments after # are not arguments."""
    found = {}
    for page in PAGES:
        for program, line in COMMAND.findall(page.read_text()):
            line = re.sub(r"\\+\n\s*", " ", line).replace("$model", "vmamba_1m")
            line = re.sub(r"\[[^\]]*\]|\$\(\w+\)|-->|#.*", lambda match: "DIR" if match[0].startswith("$") else "", line)
            if "{" in line:  # an f-string of a program
                continue
            try:
                words = shlex.split(line)
            except ValueError:  # a lone quote: the command ended in the middle of a sentence
                words = shlex.split(line.split('"')[0])
            words = [word.rstrip(".,;:)") if word == line.split()[-1] else word for word in words]
            found[(page.relative_to(ROOT).as_posix(), program, *words)] = None
    return list(found)


def test_all_are_found():
    found = documented()
    assert len(found) >= 45 and {line[1] for line in found} >= {*CHECKS, *PARSERS, "experiments.quickstart", "experiments.tpu_cycles"}
    assert ("docs/overview.md", "experiments.benchmark") in [line[:2] for line in found if len(line) == 2]


@pytest.mark.parametrize("line", documented(), ids=lambda line: " ".join([line[0].rpartition("/")[2], line[1].removeprefix("experiments."), *line[2:]])[:100])
def test_parses(line):
    _, program, *words = line
    if program == "vmamba-jax":
        program = f"experiments.{words.pop(0)}" if words[0] in commands.programs.PROGRAMS else "vmamba_jax"
    if program in PARSERS:
        if not words or words in (["convert"], ["inspect"]):  # named in a sentence
            return
        model = parsed(program, words).get("model")
        assert model is None or vmamba_jax.models.entry(model)  # a KeyError names an unknown one
        return
    config, rest = config_of(program, words)
    source = (ROOT / f"{program.replace('.', '/')}.py").read_text()
    shared = {"study": ("study", "workers"), "processes": ("workers",)}   # modules that define flags of several programs
    source += "".join((ROOT / "experiments" / "sweeps" / f"{file}.py").read_text() for name, found in shared.items() if f"{name}.flag_names" in source
                      for file in found)
    known = SHARED_FLAGS | set(re.findall(r'flags\.DEFINE_\w+\("(\w+)"', source))
    known |= set(re.findall(r'add_argument\("--(\w+)"', source))
    assert {flag.split("=")[0].lstrip("-") for flag in rest} <= known
    if config is not None:
        CHECKS[program](config)


def parsed(program, words):
    """{argument: value} of a command that has a parser of its own."""
    if program in APPS:
        return APPS[program]().parse_args(words)[1].arguments
    return vars(device_check.parser().parse_args(words))


def config_of(program, words):
    """(the config of a command with its changes, the other flags)."""
    words, file, changes, rest = list(words), DEFAULT_CONFIG.get(program), [], []
    if program == "experiments.evaluate":
        file = EVALUATED
    while words:
        word = words.pop(0)
        assert word.startswith("--"), f"unexpected argument {word!r}"
        name, equals, value = word.partition("=")
        if name == "--config":
            file = value if equals else words.pop(0)
        elif name.startswith("--config."):
            changes.append((name.removeprefix("--config."), value if equals else words.pop(0)))
        else:
            rest.append(word)
            if not equals and words and not words[0].startswith("--"):
                words.pop(0)
    if program not in CHECKS:
        return None, rest
    assert file is not None, "no --config"
    file, _, arg = file.partition(":")
    config = importlib.import_module(f"configs.{pathlib.Path(file).stem}").get_config(arg or None)
    for key, text in changes:
        section, *path = config, *key.split(".")
        for part in path[:-1]:
            section = section[part]
        free = any(part in FREE for part in path[:-1])
        assert path[-1] in section or free, f"--config.{key}: unknown field"
        with section.unlocked():
            section[path[-1]] = value_of(text, section.get(path[-1]))
    return config, rest


def value_of(text, old):
    """A flag's text as a value of the old one's type."""
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval(text)
    except ValueError:
        if old is None:  # a field of a model's module: text that is no literal is a string, as in `cli.override`
            return text
        raise
    return float(value) if isinstance(old, float) else value


STUDIES = {"mender_shapes": "mender", "mender_strong_cue": "mender", "mender_locator": "mender", "mender_vim": "mender",
           "ads_digits": "ads", "ads_mnist": "ads",
           "dense_shapes": "dense", "certify_digits": "certify", "adaptation_digits": "adapt", "attack_quality_digits": "attack_quality"}  # folder: program


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name not in ("ads_digits", "certify_digits", "attack_quality_digits") else []) for name in STUDIES])
def test_committed_page_of_a_study_is_that_of_its_json(name, tmp_path):
    """Drawn again with the command that it shows, which docs/results/README.md has too, but for the bytes of pictures."""
    folder, program = ROOT / "docs" / "results" / name, STUDIES[name]
    shown = lambda where: re.sub(r"data:image/[^\"]*", "", (where / f"{program}.html").read_text(encoding="utf-8"))
    command = re.search("<pre>([^<]*)</pre>", shown(folder))[1].strip()
    shutil.copytree(folder, tmp_path / name)
    getattr(reports, f"write_{program}")(tmp_path / name, commands=(command,))
    assert shown(tmp_path / name) == shown(folder), f"run python -m experiments.{program} --workdir {folder} --page"
    section = (folder.parent / "README.md").read_text().split(f"## {name}\n")[1].split("\n## ")[0]
    assert f"    {command}\n" in section


@pytest.mark.parametrize("name", ["analysis_photos", "analysis_shapes"])
def test_committed_page_of_an_analysis(name):
    """Named with its command; where its maps are committed too, that of its files but for the bytes of the pictures."""
    folder = ROOT / "docs" / "results" / name
    found = reports.read_analysis(folder)
    assert f"    {found.index['command']}\n" in (folder.parent / "README.md").read_text()
    if any(folder.glob("cells/*.npz")):
        text = lambda page: re.sub(r"data:image/[^\"]*", "", page)
        assert text(reports.render_analysis(found)) == text((folder / "analysis.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", sorted(file.parent for file in ROOT.glob("docs/results/*/study.json")), ids=lambda folder: folder.name)
def test_committed_page_is_that_of_its_json_and_names_its_commands(folder):
    found = reports.read_study(folder)
    text = (folder / "study.html").read_text(encoding="utf-8")
    assert reports.render_study(found, commands=[found.index["command"]]) == text, f"run python -m experiments.study --workdir {folder} --page"
    lines = [line[4:] for line in (folder.parent / "README.md").read_text().split(f"## {folder.name}\n")[1].split("\n## ")[0].splitlines()
             if line.startswith("    ")]
    assert found.index["command"] == "\n".join(lines)
    [command] = [words for program, words in COMMAND.findall(found.index["command"]) if program == "experiments.study"]
    config, _ = config_of("experiments.study", shlex.split(command.replace("\\\n", " ")))
    assert list(config.models) == found.index["config"]["models"] and \
        {name.replace("centre", "center") for name in config.probes} == {name.replace("centre", "center") for name in found.index["config"]["probes"]}
    assert json.loads(config.data.to_json_best_effort()) == found.index["config"]["data"]


def test_without_arguments():
    """One line that says what is missing; a benchmark has a default for everything and begins."""
    for program in (train, evaluate, study, sweep, benchmark):
        assert cli.argument([], "config") is None and program.__doc__.strip()
    assert benchmark._defaults([]) == [f"--config={benchmark.CONFIG}", "--workdir=runs/benchmark"]
    assert evaluate._own_config([]) == [] and study._own_config([]) == [f"--config={study.CONFIG}"]
    assert cli.argument(["--config"], "config") is None and cli.argument(["--workdir", "a"], "workdir") == "a"
    CHECKS["experiments.benchmark"](config_of("experiments.benchmark", [])[0])


def test_programs_without_arguments_and_help():
    names = ("train", "evaluate", "study", "sweep", "analyze", "plan")
    commands = [[f"experiments.{name}"] for name in names] + [["experiments.benchmark", "--config.parts=()"], ["vmamba_jax"], ["vmamba_jax.checkpoints"]]
    helps = [[program, "--help"] for program in (*(f"experiments.{name}" for name in (*names, "benchmark")), "vmamba_jax", "vmamba_jax.checkpoints")]
    found = run_programs(commands + helps)
    for (status, output), (program, *_) in zip(found[:len(commands)], commands, strict=True):
        assert status == 2 and output.startswith("error: ") and output.count("\n") == 1, (program, output)
    for (status, output), (program, *_) in zip(found[len(commands):], helps, strict=True):
        assert status == 0 and f"python -m {program}" in output and "Traceback" not in output, (program, output)


@pytest.mark.parametrize("program", APPS)
def test_commands_of_the_package_without_arguments(program, capsys):
    main = commands.main if program == "vmamba_jax" else checkpoint_commands.main
    names = [name for name in APPS[program]() if not name.startswith("-") and name not in commands.programs.PROGRAMS]
    assert len(names) >= 2
    for arguments in ([], *([name] for name in names if name not in ("models", "configs", "info"))):
        status, out, err = run_command(main, capsys, *arguments)
        assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, arguments


def test_command_that_a_page_shows_is_the_one_given(monkeypatch):
    given = ["--config", "configs/digits.py:objective=pgd_at", "--config.model.overrides={'dims': (8,)}", "--workdir", "runs/a $b 'c'"]
    monkeypatch.setattr(cli, "GIVEN", given)
    assert shlex.split(cli.command("experiments.train")) == ["python", "-m", "experiments.train", *given]
    monkeypatch.setattr(cli, "GIVEN", [])
    assert cli.command("experiments.train") == ""


def test_values_of_a_section():
    """The helper above refuses what the programs refuse."""
    with pytest.raises(AssertionError, match="--config.epoch: unknown field"):
        config_of("experiments.train", ["--config", "configs/digits.py", "--config.epoch=3"])
    config, rest = config_of("experiments.train", ["--config", "configs/digits.py", "--config.epochs=3", "--workdir", "x"])
    assert isinstance(config, ml_collections.ConfigDict) and config.epochs == 3 and rest == ["--workdir"]


@pytest.mark.slow
def test_commands_of_a_page_reproduce_it_in_a_fresh_copy(tmp_path):
    """Training and evaluation by their command lines; then the lines of report.html in a copy of the sources that holds nothing else."""
    for name in ("configs", "experiments", "vmamba_jax", "pallas_kernels"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    folder, environment = tmp_path / "a $run's", os.environ | {"PYTHONPATH": "."}
    tiny = ["--config.epochs=1", "--config.batch_size=256", "--config.model.name=resnet18", "--config.validation.attack.steps=1",
            "--config.model.overrides={'stem':'cifar','stem_width':4,'layers':(1,),'channels':(4,)}", "--config.evaluation.limit=32",
            "--config.evaluation.attacks.pgd.restarts=1"]
    run = lambda words, where: subprocess.run([sys.executable, *words], cwd=where, env=environment, check=True, capture_output=True, timeout=300)
    run(["-m", "experiments.train", "--config", "configs/digits.py:objective=standard", *tiny, "--workdir", str(folder)], ROOT)
    run(["-m", "experiments.evaluate", "--workdir", str(folder), "--config.evaluation.attacks.pgd.steps=3"], ROOT)
    page = (folder / "report.html").read_text()
    lines = [line for line in html.unescape(re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)[1]).splitlines() if line.strip()]
    assert [shlex.split(line)[2] for line in lines] == ["experiments.train", "experiments.evaluate"]
    first = json.loads((folder / "evaluation.json").read_text())
    folder.rename(tmp_path / "before")
    for line in lines:
        run(shlex.split(line)[1:], tmp_path / "copy")
    again = json.loads((folder / "evaluation.json").read_text())
    assert {name: again[name] for name in ("accuracy", "attacks", "curve", "identity")} == {name: first[name] for name in ("accuracy", "attacks", "curve", "identity")}
    table = lambda text: re.search(r"<table\b.*?</table>", text, re.DOTALL)[0]
    assert table((folder / "report.html").read_text()) == table(page)
