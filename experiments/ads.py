"""Train state space models with and without Adaptive Scaling by several objectives, and judge the claims of Qi et al. (arXiv 2406.05532).

    python -m experiments.ads --config configs/ads_study.py --workdir runs/ads
    python -m experiments.ads --config configs/ads_study.py:data=mnist,grid=at --workdir runs/ads_mnist --config.base.data.root=DIR

A sweep (see experiments.sweep). Each run's folder gets, besides the files of a sweep's run, ads.json: accuracy of the best and the last checkpoint,
clean, under PGD and under AutoAttack, on training images too, and the error before and after every component. The sweep's folder gets ads.html,
ads.json and ads.md; the same command resumes a killed study, and --page draws them again from the JSON files alone. Exit status: as of
experiments.sweep.
"""
import functools
import shlex

from absl import flags

from experiments import sweep
from experiments.ads_study import findings
from experiments.common import cli
from experiments.sweeps import plan
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Run every unfinished run, and write the page. Returns {run's name: its record}, as `sweep.run`; arguments and errors are those of it."""
    if "study" not in config:
        raise cli.ConfigError("config.study is missing: expected a config of configs/ads_study.py")
    workdir = cli.folder(workdir)
    evaluate = functools.partial(findings.evaluate, study=config.study)
    found = sweep.run(config, workdir, progress=progress, commands=(command,) if command else (), evaluate=evaluate)
    for each in plan.expand(config):  # those measured by an earlier version or with another config.study; the others are not measured again
        if found[each.name].get("status") == "done":
            evaluate(each.config, workdir / each.name, progress=progress)
    reports.write_ads(workdir, commands=(command or f"python -m experiments.ads --workdir {shlex.quote(str(workdir))}",))
    return found


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved JSON")
    return ("page",)


def main(config, workdir, page):
    command = cli.command("experiments.ads")
    if page:
        with cli.checking("--page"):
            reports.write_ads(workdir, commands=(f"python -m experiments.ads --config configs/ads_study.py --workdir {shlex.quote(str(workdir))}",))
        return
    sweep.keep_programs(workdir)
    found = run(config, workdir, command=command)
    print(f"{reports.ads_text(reports.read_ads(workdir))}\n\npage: {workdir}/ads.html")
    sweep.end(found)


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags)
