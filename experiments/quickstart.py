"""The main job in one command: a small VMamba on real digits, trained plainly and adversarially, attacked, and reported on one page.

    python -m experiments.quickstart --workdir runs/quickstart

It runs experiments.train and experiments.evaluate with configs/digits.py for both objectives, and what is finished is not done again.
Leaves with 1 where adversarial training gained less than `GAIN`, or cost more clean accuracy than `CLEAN` allows.
"""
import pathlib
import sys
import time

from absl import flags
from rich.console import Console

from configs import digits
from experiments import evaluate, train
from experiments.common import cli, environment
from vmamba_jax import reports

LABELS = {"standard": "standard training", "pgd_at": "adversarial training"}
GAIN, CLEAN = 0.50, 0.96  # of robust accuracy over standard training; of the adversarially trained model's clean accuracy
TITLE = "What adversarial training gains: a small VMamba on handwritten digits"
ABOUT = ("Two VMambas of {parameters:,} parameters, alike but for the images they were trained on: the digits as they are, or the digits as "
         "PGD changed them at every step to mislead the model. Data: scikit-learn's 1,797 real digits of 8x8 pixels.")


def run(workdir, configs=None, *, progress=True):
    """Train and evaluate one run an objective, and write the page. Returns (path of the page, {objective: evaluation.json}).

    workdir: gets one folder an objective and report.html. configs: {objective: config}; by default those of configs/digits.py.
    """
    workdir, console, since = pathlib.Path(workdir), Console(quiet=not progress, highlight=False), time.perf_counter()
    configs = configs or {objective: digits.get_config(f"objective={objective}") for objective in LABELS}
    results, evaluations = {}, {}
    for i, (objective, config) in enumerate(configs.items()):
        say = lambda what, at: console.print(f"[bold]{at} of {2 * len(configs)}[/]  {what}  [dim]({time.perf_counter() - since:.0f} s so far)[/]")
        say(f"{LABELS[objective]}, {config.epochs} epochs", 2 * i + 1)
        results[objective] = train.run(config, workdir / objective, progress=progress)
        say(f"attacking the model of {LABELS[objective]}", 2 * i + 2)
        evaluations[objective] = evaluate.run(config, workdir / objective, progress=progress)
    runs = [reports.read_run(workdir / objective, LABELS[objective]) for objective in configs]
    page = reports.write(
        workdir / "report.html", runs, title=TITLE, about=ABOUT.format(parameters=next(iter(results.values()))["parameters"]),
        commands=["make quickstart", "# or, step by step"] + [
            line for objective in configs for line in
            (f"python -m experiments.train --config configs/digits.py:objective={objective} --workdir {workdir / objective}",
             f"python -m experiments.evaluate --workdir {workdir / objective}")])
    console.print(f"\n{reports.tables.text(runs)}\n\n[dim]{time.perf_counter() - since:.0f} s in all[/]")
    return page, evaluations


def shortfalls(evaluations):
    """What the figures fall short of, as sentences; none where the job did what it is for."""
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
