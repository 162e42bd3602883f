"""The main job in one command: train a small VMamba on real digits by standard and by adversarial training, attack both, and write one report.

    python -m experiments.quickstart --workdir runs/quickstart

It is the sweep of configs/digits_sweep.py with one seed: see experiments.sweep. A finished run is not repeated. Exit status 1: adversarial training
gained less than `GAIN`, or its clean accuracy is below `CLEAN`.
"""
import sys
import time

from absl import flags
from rich.console import Console

from configs import digits_sweep
from experiments import sweep
from experiments.common import cli, environment
from vmamba_jax import reports

LABELS = {"standard": "standard training", "pgd_at": "adversarial training"}
GAIN, CLEAN = 0.50, 0.96  # minimum gain in robust accuracy over standard training, and clean accuracy of the adversarially trained model
TITLE = "What adversarial training gains: a small VMamba on handwritten digits"
ABOUT = ("Two VMambas of {parameters:,} parameters that differ only in their training images: the digits as they are, or the digits as PGD perturbs them "
         "at every step. Data: scikit-learn's 1,797 real digits of 8x8 pixels.")


def run(workdir, config=None, *, progress=True):
    """Train and evaluate one run for each objective, and write the report.

    Args:
        workdir: gets a folder for each objective, and report.html, sweep.html and the summary files.
        config: a sweep whose groups are the keys of `LABELS`, without seeds; None: that of configs/digits_sweep.py.
        progress: whether to print progress and the table of results.

    Returns:
        (path of the report, {objective: content of evaluation.json}).

    Raises:
        RunError: a run failed.
    """
    workdir, console, since = cli.folder(workdir), Console(quiet=not progress, highlight=False), time.perf_counter()
    config = digits_sweep.get_config("seeds=0") if config is None else config
    found = sweep.run(config, workdir, progress=progress, commands=("make quickstart",))
    for objective, record in found.items():
        if record.get("status") != "done":
            raise cli.RunError(f"{objective}: {record.get('reason') or 'another process runs it'}")
    runs = [reports.read_run(workdir / objective, LABELS[objective]) for objective in found]
    page = reports.write(
        workdir / "report.html", runs, title=TITLE, about=ABOUT.format(parameters=runs[0].results["parameters"]),
        commands=["make quickstart", "# or, step by step"] + [
            line for objective in found for line in
            (f"python -m experiments.train --config configs/digits.py:objective={objective} --workdir {workdir / objective}",
             f"python -m experiments.evaluate --workdir {workdir / objective}")])
    console.print(f"\n{reports.tables.text(runs)}\n\n[dim]{time.perf_counter() - since:.0f} s in total[/]")
    return page, {objective: run.evaluation for objective, run in zip(found, runs, strict=True)}


def shortfalls(evaluations):
    """Sentences about figures below `GAIN` and `CLEAN`; empty if there are none."""
    robust = {objective: e["attacks"][e["curve"]["attack"]]["robust_accuracy"] for objective, e in evaluations.items()}
    gain, clean = robust["pgd_at"] - robust["standard"], evaluations["pgd_at"]["accuracy"]
    return ([f"adversarial training gained {100 * gain:.1f} points under attack, expected at least {100 * GAIN:.0f}"] if gain < GAIN else []) + \
           ([f"its clean accuracy is {100 * clean:.1f} %, expected at least {100 * CLEAN:.0f} %"] if clean < CLEAN else [])


def main(_):
    environment.prepare()
    with cli.exit_on_error():
        page, evaluations = run(flags.FLAGS.workdir)
    for sentence in (short := shortfalls(evaluations)):
        print(f"error: {sentence}", file=sys.stderr)
    print(f"report: {page}")
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", "runs/quickstart", "folder of the runs and of report.html")
    cli.start(main)
