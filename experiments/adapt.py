"""Adapt small models to corrupted images by several methods, and attack them through the adaptation.

    python -m experiments.adapt --config configs/adaptation.py --workdir runs/adaptation

A sweep (see experiments.sweep). Each run's folder gets, besides the files of a sweep's run, adapt.json. The sweep's folder gets adapt.html, adapt.json
and adapt.md; the same command resumes a killed study, and --page draws them again from the JSON files alone. Exit status: as of experiments.sweep.
"""
import functools

from experiments.adapting import findings
from experiments.common import cli
from experiments.sweeps import study
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Run every unfinished run, and write the page. Returns {run's name: its record}, as `sweep.run`; arguments and errors are those of it."""
    if "study" not in config:
        raise cli.ConfigError("config.study is missing: expected a config of configs/adaptation.py")
    return study.run(config, workdir, name="adapt", evaluate=functools.partial(findings.evaluate, study=config.study), write=reports.write_adapt,
                     progress=progress, command=command)


def main(config, workdir, **options):
    study.main(config, workdir, **options, name="adapt", file="configs/adaptation.py", run=run, write=reports.write_adapt,
               text=lambda folder: reports.adapt_text(reports.read_adapt(folder)))


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=study.flag_names)
