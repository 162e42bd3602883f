"""Train state space models with and without Adaptive Scaling by several objectives, and judge the claims of Qi et al. (arXiv 2406.05532).

    python -m experiments.ads --config configs/ads_study.py --workdir runs/ads
    python -m experiments.ads --config configs/ads_study.py:data=mnist,grid=at --workdir runs/ads_mnist --config.base.data.root=DIR

A sweep (see experiments.sweep). Each run's folder gets, besides the files of a sweep's run, ads.json: accuracy of the best and the last checkpoint,
clean, under PGD and under AutoAttack, on training images too, and the error before and after every component. The sweep's folder gets ads.html,
ads.json and ads.md; the same command resumes a killed study, and --page draws them again from the JSON files alone. Exit status: as of
experiments.sweep.
"""
import functools

from experiments.ads_study import findings
from experiments.common import cli
from experiments.sweeps import study
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Run every unfinished run, and write the page. Returns {run's name: its record}, as `sweep.run`; arguments and errors are those of it."""
    if "study" not in config:
        raise cli.ConfigError("config.study is missing: expected a config of configs/ads_study.py")
    return study.run(config, workdir, name="ads", evaluate=functools.partial(findings.evaluate, study=config.study), write=reports.write_ads,
                     progress=progress, command=command)


def main(config, workdir, **options):
    study.main(config, workdir, **options, name="ads", file="configs/ads_study.py", run=run, write=reports.write_ads,
               text=lambda folder: reports.ads_text(reports.read_ads(folder)))


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=study.flag_names)
