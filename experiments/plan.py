"""What a training run would cost on chips that are not here: memory, largest batch, step time, hours.

    python -m experiments.plan --config configs/imagenet.py:recipe=singh,model=vmamba_base --topology v5e:16x16
    python -m experiments.plan --config configs/imagenet.py:recipe=singh --topology h100:8 --workdir runs/plan_h100
    python -m experiments.plan --check --config configs/imagenet.py

It compiles the training step of `experiments.train` ahead of time: for a TPU slice with libtpu (`make install-aot`, then
TPU_LIBRARY_PATH=.venv/aot/libtpu/libtpu.so), for GPUs from the counts of the CPU's program. It prints the plan and writes it to <workdir>/plan.json.
--topology: v4, v5e, v5p, v6e and the slice's shape, or a100, h100, h200 and a number. --batch: images of a step, over all chips. --dtype: of the model.
--images: training images, for a data set that is not here (ImageNet-1k's number by default). --phase: which of config.phases. --variants, --compiles, --minutes: how much it searches.
--blocks: a model of equal blocks, such as a ViT, is compiled with N and 2 N of them and extrapolated, which the plan says. --effort=full compiles the program that runs, in several times the compile time of the quick one (docs/plan.md).
--check compares the same estimate for this machine's CPU with measured steps of three models, and writes <workdir>/plan_check.json; it needs a quiet
machine.
"""
import os
import pathlib

from absl import flags

from configs import base
from experiments.common import cli, limits, phases, results
from experiments.planning import check, chips, planning, programs
from experiments.planning.text import text

VARIANTS = ("plain", "remat")


def run(config, workdir, *, topology, phase=0, batch=0, images=0, dtype="", variants=VARIANTS, compiles=2, minutes=9.5, blocks=0, effort="low", check_here=False):
    """Plan and print; returns what it wrote. phase: of config.phases, from 1; 0: the config has none. Other arguments: see `planning.plan`."""
    workdir = cli.folder(workdir)
    if check_here:
        record = check.check(report=cli.report)
        results.save_json(workdir / "plan_check.json", record)
        cli.report(check.text(record))
        return record
    with cli.checking():
        config = base.complete(config)
    limits.check_run(config)
    parts = phases.configs(config)
    if config.phases and not 1 <= phase <= len(parts):
        raise cli.ConfigError(f"--phase={phase}: expected 1 to {len(parts)}, one of config.phases, whose programs and hours are planned one by one")
    if phase and not config.phases:
        raise cli.ConfigError(f"--phase={phase}: expected 0, as config.phases is ()")
    config = parts[max(0, phase - 1)]
    slice = chips.parse(topology)
    if unknown := sorted(set(variants) - set(VARIANTS)):
        raise cli.ConfigError(f"--variants={unknown[0]}: expected some of {', '.join(VARIANTS)}")
    if effort not in programs.EFFORTS:
        raise cli.ConfigError(f"--effort={effort}: expected one of {', '.join(programs.EFFORTS)}")
    for name, value in (("batch", batch), ("images", images), ("compiles", compiles), ("blocks", blocks)):
        with cli.checking():
            limits.count(f"--{name}", value, low=0)
    made = planning.plan(config, slice, images=images, batch=batch, dtype=dtype, variants=tuple(variants), compiles=compiles, minutes=minutes, blocks=blocks,
                          effort=effort, report=cli.report)
    made |= {"phase": phase, "command": cli.command("experiments.plan"), "config": results.plain(config)}
    results.save_json(workdir / "plan.json", made)
    cli.report(text(made) + f"\nwritten: {pathlib.Path(workdir) / 'plan.json'}")
    return made


def _define():
    flags.DEFINE_string("topology", "", f"chips: {chips.known()}")
    flags.DEFINE_integer("phase", 0, "which of config.phases, from 1; 0: the config has none")
    flags.DEFINE_integer("batch", 0, "images of a step over all chips; 0: config.batch_size")
    flags.DEFINE_integer("images", 0, "training images, if the data set is not here; 0: the data set's")
    flags.DEFINE_string("dtype", "", "the model's compute dtype, such as bfloat16; empty: the config's")
    flags.DEFINE_list("variants", list(VARIANTS), "plain (the config's), remat")
    flags.DEFINE_integer("compiles", 2, "programs compiled for each variant in search of the largest batch")
    flags.DEFINE_float("minutes", 9.5, "minutes that the search should take")
    flags.DEFINE_integer("blocks", 0, "compile N and 2 N blocks of a model of equal blocks, and extrapolate to all of them; 0: compile all")
    flags.DEFINE_string("effort", "low", "of the TPU's compiler: low, or full: the program that would run, in several times the compile time")
    flags.DEFINE_bool("check", False, "compare the estimate for this machine's CPU with measured steps")
    return "topology", "phase", "batch", "images", "dtype", "variants", "compiles", "minutes", "blocks", "effort", "check"


def main(config, workdir, *, check, **options):
    run(config, workdir, check_here=check, **options)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    cli.main(main, doc=__doc__, define=_define, workdir="runs/plan")
