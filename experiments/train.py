"""Train a classifier, standard or adversarial.

    python -m experiments.train --config configs/digits.py:objective=pgd_at --workdir runs/digits
    python -m experiments.train --config configs/digits.py --workdir runs/short --config.epochs=3

--config.field=value sets any field of the config. The same command resumes a stopped run; Ctrl-C or SIGTERM stops a run after the current step and
saves it, a second one ends it at once. The folder gets config.json, metrics.jsonl, timing.jsonl, tensorboard/, checkpoints/ (the latest, and the
best on the validation split) and, when the run is done, results.json and training.html; docs/training.md describes them.
Several hosts: the same command on each, with --coordinator=HOST:PORT --processes=N --process=I, or --cluster if JAX finds them itself.
"""
import shlex

from experiments.common import cli
from experiments.common.training import run
from vmamba_jax.core.run_folder import run_folder

__all__ = ["run"]


def main(config, workdir):
    """Train and print the best validation result, the report's path and the next command."""
    best = run(config, workdir, command=cli.command("experiments.train"))["best"]
    score, name = ("accuracy", "") if "validation/accuracy" in best else ("mask_AP", "mask AP ")
    cli.report(f"best on validation, step {best['step']}: {name}clean {100 * best[f'validation/{score}']:.1f} %, "
               f"attacked {100 * best[f'validation/robust_{score}']:.1f} %\n"
               f"report: {run_folder(workdir) / 'training.html'}\n"
               f"next: {cli.invocation('evaluate')} --workdir {shlex.quote(str(workdir))}")


if __name__ == "__main__":
    cli.main(main, doc=__doc__)
