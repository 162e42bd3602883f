"""Adapt small models to corrupted images by several methods, and attack them through the adaptation.

    python -m experiments.adapt --config configs/adaptation.py --workdir runs/adaptation

A sweep (see experiments.sweep). Each run's folder gets, besides the files of a sweep's run, adapt.json. The sweep's folder gets adapt.html, adapt.json
and adapt.md; the same command resumes a killed study, and --page draws them again from the JSON files alone. Exit status: as of experiments.sweep.
"""
import functools
import shlex

from absl import flags

from experiments import sweep
from experiments.adapting import findings
from experiments.common import cli
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Run every unfinished run, and write the page. Returns {run's name: its record}, as `sweep.run`; arguments and errors are those of it."""
    if "study" not in config:
        raise cli.ConfigError("config.study is missing: expected a config of configs/adaptation.py")
    workdir = cli.folder(workdir)
    evaluate = functools.partial(findings.evaluate, study=config.study)
    found = sweep.run(config, workdir, progress=progress, commands=(command,) if command else (), evaluate=evaluate)
    reports.write_adapt(workdir, commands=(command or f"python -m experiments.adapt --workdir {shlex.quote(str(workdir))}",))
    return found


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved JSON")
    return ("page",)


def main(config, workdir, page):
    command = cli.command("experiments.adapt")
    if page:
        with cli.checking("--page"):
            reports.write_adapt(workdir, commands=(f"python -m experiments.adapt --config configs/adaptation.py --workdir {shlex.quote(str(workdir))}",))
        return
    sweep.keep_programs(workdir)
    found = run(config, workdir, command=command)
    print(f"{reports.adapt_text(reports.read_adapt(workdir))}\n\npage: {workdir}/adapt.html")
    sweep.end(found)


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags)
