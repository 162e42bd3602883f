"""Certify the accuracy of small models: l2 radii by randomized smoothing, linf radii by interval bounds, beside AutoAttack on the same images.

    python -m experiments.certify --config configs/certify.py --workdir runs/certify

A sweep (see experiments.sweep). Each run's folder gets, besides the files of a sweep's run, certify.json. The sweep's folder gets certify.html,
certify.json and certify.md; the same command resumes a killed study, and --page draws them again from the JSON files alone. A run fails if an image is
certified and broken. Exit status: as of experiments.sweep.
"""
import functools

from experiments.certifying import findings
from experiments.common import cli
from experiments.sweeps import study
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Run every unfinished run, and write the page. Returns {run's name: its record}, as `sweep.run`; arguments and errors are those of it."""
    if "study" not in config:
        raise cli.ConfigError("config.study is missing: expected a config of configs/certify.py")
    return study.run(config, workdir, name="certify", evaluate=functools.partial(findings.evaluate, study=config.study), write=reports.write_certify,
                     progress=progress, command=command)


def main(config, workdir, **options):
    study.main(config, workdir, **options, name="certify", file="configs/certify.py", run=run, write=reports.write_certify,
               text=lambda folder: reports.certify_text(reports.read_certify(folder)))


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=study.flag_names)
