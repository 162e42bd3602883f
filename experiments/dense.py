"""Train small segmenters and detectors on rendered shapes, and measure them on clean, attacked, corrupted and occluded images.

    python -m experiments.dense --config configs/dense.py --workdir runs/dense
    python -m experiments.dense --config configs/dense.py:tasks=segmentation,models=all,objectives=both,seeds=3 --workdir runs/dense_all

Each run's folder WORKDIR/<group>/seed_<seed> gets the files of experiments.train, dense.json and dense.npz. WORKDIR gets dense.html with predictions
drawn over images, dense.json and dense.md. The same command resumes a killed study; --page draws the page again from the saved files alone.
"""
import shlex

from absl import flags

from experiments import sweep
from experiments.common import build, cli, results, training
from experiments.dense_study import detections, findings
from experiments.sweeps import plan
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Train and measure every run that is not finished, and write the page.

    Args:
        config: as `configs.dense.get_config` makes it.
        workdir: the study's folder.
        progress: whether to show progress.
        command: shell line that the page gives to reproduce it; "": from the folder.

    Raises:
        ConfigError: a config that cannot be run. RunError: a run failed; the others are kept.
    """
    if "study" not in config:
        raise cli.ConfigError("config.study is missing: expected a config of configs/dense.py")
    workdir = cli.folder(workdir)
    planned = plan.expand(config)
    results.save_json(workdir / "runs.json", {"config": results.plain(config), "runs": [{"name": each.name, "group": each.group, "seed": each.seed} for each in planned]})
    for each in planned:
        training.run(each.config, workdir / each.name, progress=progress)
        measure = detections if build.is_detector(each.config) else findings
        measure.evaluate(each.config, workdir / each.name, config.study, group=each.group, progress=progress)
        reports.write_dense(workdir, commands=(command or _command(workdir),))


def _command(workdir):
    return f"{cli.invocation('dense')} --workdir {shlex.quote(str(workdir))}"


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved files")
    return ("page",)


def main(config, workdir, page):
    if page:
        with cli.checking("--page"):
            reports.write_dense(workdir, commands=(f"{cli.invocation('dense')} --config configs/dense.py --workdir {shlex.quote(str(workdir))}",))
        return
    sweep.keep_programs(workdir)
    run(config, workdir, command=cli.command("experiments.dense"))
    cli.report(f"{reports.dense_text(reports.read_dense(workdir))}\n\npage: {workdir}/dense.html")


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags)
