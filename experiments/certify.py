"""Certify the accuracy of small models: l2 radii by randomized smoothing, linf radii by interval bounds, beside AutoAttack on the same images.

    python -m experiments.certify --config configs/certify.py --workdir runs/certify

A sweep (see experiments.sweep). Each run's folder gets, besides the files of a sweep's run, certify.json. The sweep's folder gets certify.html,
certify.json and certify.md; the same command resumes a killed study, and --page draws them again from the JSON files alone. A run fails if an image is
certified and broken. Exit status: as of experiments.sweep.
"""
import functools
import shlex

from absl import flags

from experiments import sweep
from experiments.certifying import findings
from experiments.common import cli
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Run every unfinished run, and write the page. Returns {run's name: its record}, as `sweep.run`; arguments and errors are those of it."""
    if "study" not in config:
        raise cli.ConfigError("config.study is missing: expected a config of configs/certify.py")
    workdir = cli.folder(workdir)
    evaluate = functools.partial(findings.evaluate, study=config.study)
    found = sweep.run(config, workdir, progress=progress, commands=(command,) if command else (), evaluate=evaluate)
    reports.write_certify(workdir, commands=(command or f"python -m experiments.certify --workdir {shlex.quote(str(workdir))}",))
    return found


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved JSON")
    return ("page",)


def main(config, workdir, page):
    command = cli.command("experiments.certify")
    if page:
        with cli.checking("--page"):
            reports.write_certify(workdir, commands=(f"python -m experiments.certify --config configs/certify.py --workdir {shlex.quote(str(workdir))}",))
        return
    sweep.keep_programs(workdir)
    found = run(config, workdir, command=command)
    print(f"{reports.certify_text(reports.read_certify(workdir))}\n\npage: {workdir}/certify.html")
    sweep.end(found)


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags)
