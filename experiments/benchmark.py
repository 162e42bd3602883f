"""Benchmark the scan, models and attacks on this machine: forward pass, input gradient, training step, memory, growth with the image size.

    python -m experiments.benchmark
    python -m experiments.benchmark --against torch --config.models.names="('vmamba_tiny','vmamba_small')" --config.repeats=21
    python -m experiments.benchmark --config configs/benchmark.py:machine=accelerator --workdir runs/gpu
    python -m experiments.benchmark --against torch --config.parts="('attacks',)" --config.attacks.models="('runs/cifar10',)"
    python -m experiments.benchmark --config.parts="('corruptions',)"
    python -m experiments.benchmark --config.parts="('compile',)"
    python -m experiments.benchmark --against torch --config.parts="('sequences',)"
    python -m experiments.benchmark --against torch --config.parts="('training',)"
    JAX_NUM_CPU_DEVICES=8 python -m experiments.benchmark --config.parts="('scaling',)"
    python -m experiments.benchmark --docs

The folder (--workdir, by default runs/benchmark) gets benchmark.json and the figure benchmark.svg; --out=PATH.json sets another file.
The candidates of a comparison run in turn, round by round, in one process, on the devices of JAX. --against torch adds timm's models, if torch and
timm are installed; for sequences it runs the same layers in plain torch, and needs no timm; for attacks it runs the reference AutoAttack (pyautoattack) on the same weights and images. --docs draws docs/benchmarks.md from
the files in docs/benchmarks/ and measures nothing.
"""
import json
import pathlib
import shlex
import sys

import jax
from absl import flags

from experiments.benchmarks import attacks, corruptions, ladder, models, operations, scaling, scans, sequences, torch_models, training
from experiments.benchmarks import compile as compiling
from experiments.benchmarks.timing import Skip, measure
from experiments.common import cli, environment, limits, results
from vmamba_jax.reports import benchmarks
from vmamba_jax.reports.page import put

ROOT = pathlib.Path(__file__).parent.parent
CONFIG, WORKDIR = ROOT / "configs" / "benchmark.py", "runs/benchmark"


def run(config, out, against="", *, command="", progress=True):
    """Measure as the config says, and write the JSON file and a figure next to it.

    The file is rewritten after every group, so a stopped benchmark keeps the groups it finished.

    Args:
        config: ConfigDict such as configs/benchmark.py returns, with every key of `configs.base.benchmark`.
        out: path of the JSON file.
        against: "torch" adds its models; "": none.
        command: the command line to record.
        progress: whether to draw the progress bar.

    Returns:
        The content of the file.

    Raises:
        ConfigError: a config that cannot be measured.
    """
    out = pathlib.Path(out)
    _check(config, against)
    cli.folder(out.parent)
    devices = jax.devices()[:config.devices or None]
    versions = environment.versions(environment.KERNEL_PACKAGES) | (torch_models.require(config.against, tuple(config.parts) != ("sequences",)) if against else {})
    versions |= environment.installed(("pyautoattack",)) if against and "attacks" in config.parts else {}
    groups = [group for part in config.parts for group in _groups(part, config, devices, against)]
    content = {
        "kind": "benchmark", "device": environment.device(devices), "versions": versions, "commit": results.commit(), "command": command,
        "against": against, "config": json.loads(config.to_json()), "seed": config.seed, "started": environment.now(),
        "load": {"before": environment.load()}, "notes": [], "records": [],
    }
    memory = len(config.memory.names) * len(config.memory.variants) if "memory" in config.parts else 0
    processes = len(compiling.measurements(config)) * config.compile.repeats if "compile" in config.parts else 0
    programs = 1 + len(attacks.SUBJECTS) * bool(against)
    attacked = len(config.attacks.models) * len(config.attacks.attacks) * programs if "attacks" in config.parts else 0

    def save():
        content.update(finished=environment.now(), load=content["load"] | {"after": environment.load()})
        results.save_json(out, content)

    with cli.bar("benchmark", sum(len(group) for group in groups) * (1 + config.repeats) + memory + processes + attacked, progress) as bar:
        for group in groups:
            cases = _cases(group, content["notes"], bar, config.operations)
            content["records"] += corruptions.compared(measure(cases, config.repeats, config.seconds, lambda: bar.advance(0)))
            save()
        if memory:
            records, notes = models.memory(config, devices, lambda: bar.advance(0))
            content["records"] += records
            content["notes"] += notes
            save()
        if processes:
            bar.update(0, description="tracing, lowering and compiling")
            content["records"] += compiling.records(config, lambda: bar.advance(0))
            save()
        if "attacks" in config.parts:
            bar.update(0, description="attacks")
            records, notes = attacks.records(config, devices, bool(against), lambda: bar.advance(0))
            content["records"] += records
            content["notes"] += notes
            save()
        bar.update(0, completed=bar.tasks[0].total, description="")
    put(out.with_suffix(".svg"), benchmarks.figure(content))
    return content


def _check(config, against):
    limits.check_benchmark(config)
    if against not in ("", "torch"):
        raise cli.ConfigError(f"--against={against}: expected torch")
    if not 0 <= config.devices <= jax.device_count():
        raise cli.ConfigError(f"config.devices={config.devices}: expected 0 for all, or at most the {jax.device_count()} of this process")
    if jax.process_count() > 1:
        raise cli.ConfigError(f"--processes={jax.process_count()}: expected 1; this program measures one host")


def _groups(part, config, devices, against):
    if part == "scan":
        return scans.groups(config, devices)
    if part == "models":
        return models.groups(config, devices, bool(against))
    if part == "corruptions":
        return corruptions.groups(config, devices)
    if part == "scaling":
        return scaling.groups(config, devices)
    if part == "training":
        return training.groups(config, devices, bool(against))
    if part == "ladder":
        return ladder.groups(config, devices)
    if part == "sequences":
        return sequences.groups(config, devices, bool(against))
    return models.growth_groups(config, devices) if part == "growth" else []


def _cases(group, notes, bar, expensive):
    """The group's candidates, compiled and run once, with the operations of most time of each model's program; a candidate that cannot run adds its reason to `notes`."""
    cases = []
    for make in group:
        try:
            bar.update(0, description=" ".join(word for word in make.args if isinstance(word, str)))
            case = make()
            facts = [str(case.record[field]) for field in ("name", "pass", "size", "length") if field in case.record]
            bar.update(0, advance=1, description="timing " + " ".join(facts))
            case.seconds(1)
            if expensive and case.record["what"] in ("model", "training"):
                operations.name_in(case, expensive)
            cases.append(case)
        except Skip as skip:
            notes.append(str(skip))
        except RuntimeError as error:  # usually out of memory
            notes.append(f"{case.record['name']} {case.record['backend']} {case.record['pass']}: {str(error).splitlines()[0]}")
    return cases


def _flags():
    flags.DEFINE_string("out", None, "the JSON file; by default benchmark.json in the workdir")
    flags.DEFINE_string("against", "", "torch: also measure timm's models in torch")
    flags.DEFINE_bool("docs", False, "only draw docs/benchmarks.md again from docs/benchmarks/*.json")
    return "out", "against", "docs"


def _defaults(argv):
    """The arguments with this program's --config and --workdir, if they lack them."""
    given = {"config": CONFIG, "workdir": WORKDIR}
    return [f"--{name}={value}" for name, value in given.items() if cli.argument(argv, name) is None] + argv


def _command(argv):
    """The command line of the measurement, without the flags that only set its files' place."""
    kept, skip = [], False
    for word in argv:
        name, equals, _ = word.lstrip("-").partition("=")
        if skip or (word.startswith("-") and name in ("out", "workdir")):
            skip = not skip and not equals
            continue
        kept.append(word)
    return " ".join(["python -m experiments.benchmark", *(f'"{word}"' if "'" in word else shlex.quote(word) for word in kept)])


def main(config, workdir, out, against, docs):
    """Measure and print the tables, or draw docs/benchmarks.md."""
    if docs:
        with cli.checking("--docs"):
            print(f"wrote {benchmarks.write_docs(ROOT / 'docs' / 'benchmarks', ROOT / 'docs' / 'benchmarks.md')}")
        return
    environment.prepare(large=True)
    out = pathlib.Path(out or pathlib.Path(workdir) / "benchmark.json")
    content = run(config, out, against, command=COMMAND)
    print(f"{benchmarks.markdown([benchmarks.named(out.stem, content)])}\n{out}\n{out.with_suffix('.svg')}")


if __name__ == "__main__":
    COMMAND = _command(sys.argv[1:])
    cli.main(main, doc=__doc__, define=_flags, complete=_defaults)
