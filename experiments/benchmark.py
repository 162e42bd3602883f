"""Time the scan, whole models and attacks on this machine: forward, input gradient, training step; memory; growth with the image.

    python -m experiments.benchmark
    python -m experiments.benchmark --against torch --config.models.names="('vmamba_tiny','vmamba_small')" --config.repeats=21
    python -m experiments.benchmark --config configs/benchmark.py:machine=accelerator --workdir runs/gpu
    python -m experiments.benchmark --against torch --config.parts="('attacks',)" --config.attacks.models="('runs/cifar10',)"
    python -m experiments.benchmark --config.parts="('corruptions',)"
    python -m experiments.benchmark --config.parts="('compile',)"
    JAX_NUM_CPU_DEVICES=8 python -m experiments.benchmark --config.parts="('scaling',)"
    python -m experiments.benchmark --docs

The folder (--workdir, by default runs/benchmark) gets benchmark.json and the figure benchmark.svg; --out=PATH.json names the file otherwise.
What is compared is run in turn, round by round, in one process, on the devices JAX shows. --against torch adds timm's models where torch and
timm are installed; for attacks it runs the reference AutoAttack (pyautoattack) on the same weights and images. A file moved to docs/benchmarks/ becomes part of docs/benchmarks.md by --docs, which measures nothing.
"""
import json
import pathlib
import shlex
import sys

import jax
from absl import flags

from experiments import (
    _attack_cases,
    _build,
    _cli,
    _compile_cases,
    _corruption_cases,
    _environment,
    _machine,
    _model_cases,
    _results,
    _scaling,
    _scan_cases,
    _torch_cases,
)
from experiments._timing import Skip, measure
from vmamba_jax.reports import benchmarks

ROOT = pathlib.Path(__file__).parent.parent
CONFIG, WORKDIR = ROOT / "configs" / "benchmark.py", "runs/benchmark"
PARTS = ("scan", "models", "memory", "growth", "attacks", "scaling", "corruptions", "compile")


def run(config, out, against="", *, command="", progress=True):
    """Measure as the config says and return the content of the JSON file `out`, beside which the figure is drawn.

    config: of configs/benchmark.py. against: "torch" to add its models, or "". command: the line that is recorded as having asked for it.
    The file is written anew after every group: what was measured before a run is stopped stays. Raises ConfigError.
    """
    out = pathlib.Path(out)
    _check(config, against)
    _cli.folder(out.parent)
    devices = jax.devices()[:config.devices or None]
    versions = _machine.versions() | (_torch_cases.require(config.against) if against else {})
    versions |= _machine.installed(("pyautoattack",)) if against and "attacks" in config.parts else {}
    groups = [group for part in config.parts for group in _groups(part, config, devices, against)]
    content = {
        "kind": "benchmark", "device": _machine.device(devices), "versions": versions, "commit": _results.commit(), "command": command,
        "against": against, "config": json.loads(config.to_json()), "seed": config.seed, "started": _machine.now(),
        "load": {"before": _machine.load()}, "notes": [], "records": [],
    }
    memory = len(config.memory.names) * len(config.memory.variants) if "memory" in config.parts else 0

    compiled = len(_compile_cases.measurements(config)) * config.compile.repeats if "compile" in config.parts else 0

    attacked = len(config.attacks.models) * len(config.attacks.attacks) * (1 + len(_attack_cases.SUBJECTS) * bool(against)) if "attacks" in config.parts else 0

    def save():
        content.update(finished=_machine.now(), load=content["load"] | {"after": _machine.load()})
        _results.save_json(out, content)

    with _cli.bar("benchmark", sum(len(group) for group in groups) * (1 + config.repeats) + memory + compiled + attacked, progress) as bar:
        for group in groups:
            cases = _cases(group, content["notes"], bar)
            content["records"] += _corruption_cases.compared(measure(cases, config.repeats, config.seconds, lambda: bar.advance(0)))
            save()
        if memory:
            records, notes = _model_cases.memory(config, devices, lambda: bar.advance(0))
            content["records"] += records
            content["notes"] += notes
            save()
        if compiled:
            bar.update(0, description="tracing, lowering and compiling")
            content["records"] += _compile_cases.records(config, lambda: bar.advance(0))
            save()
        if "attacks" in config.parts:
            bar.update(0, description="attacks")
            records, notes = _attack_cases.records(config, devices, bool(against), lambda: bar.advance(0))
            content["records"] += records
            content["notes"] += notes
            save()
        bar.update(0, completed=bar.tasks[0].total, description="")
    out.with_suffix(".svg").write_text(benchmarks.figure(content), encoding="utf-8")
    return content


def _check(config, against):
    _build.positive(config, "repeats")
    if against not in ("", "torch"):
        raise _cli.ConfigError(f"--against={against}: expected torch")
    if not config.parts or any(part not in PARTS for part in config.parts):
        raise _cli.ConfigError(f"config.parts={config.parts!r}: expected some of {', '.join(PARTS)}")
    if not 0 <= config.devices <= jax.device_count():
        raise _cli.ConfigError(f"config.devices={config.devices}: expected 0 for all, or at most the {jax.device_count()} there are")
    if jax.process_count() > 1:
        raise _cli.ConfigError("several hosts: this program measures one; start it on one")


def _groups(part, config, devices, against):
    if part == "scan":
        return _scan_cases.groups(config, devices)
    if part == "models":
        return _model_cases.groups(config, devices, bool(against))
    if part == "corruptions":
        return _corruption_cases.groups(config, devices)
    if part == "scaling":
        return _scaling.groups(config, devices)
    return _model_cases.growth_groups(config, devices) if part == "growth" else []


def _cases(group, notes, bar):
    """The group's candidates, compiled and run once; those that cannot run become notes."""
    cases = []
    for make in group:
        try:
            bar.update(0, description="compiling " + " ".join(word for word in make.args if isinstance(word, str)))
            case = make()
            told = [str(case.record[field]) for field in ("name", "pass", "size", "length") if field in case.record]
            bar.update(0, advance=1, description="timing " + " ".join(told))
            case.seconds(1)
            cases.append(case)
        except Skip as skip:
            notes.append(str(skip))
        except RuntimeError as error:  # out of memory, most likely
            notes.append(f"{case.record['name']} {case.record['backend']} {case.record['pass']}: {str(error).splitlines()[0]}")
    return cases


def _flags():
    flags.DEFINE_string("out", None, "the JSON file; by default benchmark.json in the workdir")
    flags.DEFINE_string("against", "", "torch: add timm's models, run by torch")
    flags.DEFINE_bool("docs", False, "draw docs/benchmarks.md again from docs/benchmarks/*.json, and do nothing else")
    return "out", "against", "docs"


def _defaults(argv):
    """Without --config and --workdir, this program's own."""
    given = {"config": CONFIG, "workdir": WORKDIR}
    return [f"--{name}={value}" for name, value in given.items() if _cli.argument(argv, name) is None] + argv


def _command(argv):
    """The line that asks for the same measurement: without the flags that only say where its files go."""
    kept, skip = [], False
    for word in argv:
        name, equals, _ = word.lstrip("-").partition("=")
        if skip or word.startswith("-") and name in ("out", "workdir"):
            skip = not skip and not equals
            continue
        kept.append(word)
    return " ".join(["python -m experiments.benchmark", *(f'"{word}"' if "'" in word else shlex.quote(word) for word in kept)])


def main(config, workdir, out, against, docs):
    if docs:
        with _cli.checking("--docs"):
            print(f"wrote {benchmarks.write_docs(ROOT / 'docs' / 'benchmarks', ROOT / 'docs' / 'benchmarks.md')}")
        return
    _environment.prepare(large=True)
    out = pathlib.Path(out or pathlib.Path(workdir) / "benchmark.json")
    content = run(config, out, against, command=COMMAND)
    print(f"{benchmarks.markdown([benchmarks.named(out.stem, content)])}\n{out}\n{out.with_suffix('.svg')}")


if __name__ == "__main__":
    COMMAND = _command(sys.argv[1:])
    _cli.main(main, doc=__doc__, define=_flags, complete=_defaults)
