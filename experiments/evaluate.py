"""Evaluate a trained run, or released weights: accuracy, clean, under attacks and over radii, on corrupted images; calibration.

    python -m experiments.evaluate --workdir runs/digits
    python -m experiments.evaluate --workdir runs/digits --config.evaluation.attacks.pgd.restarts=20
    python -m experiments.evaluate --workdir runs/digits --config.evaluation.corruptions.names=fog+contrast --config.evaluation.calibration.bins=15
    python -m experiments.evaluate --workdir runs/tiny --config configs/evaluate_weights.py:model=vmamba_tiny --config.weights=DIR

Without --config, the config is the run's own. `--config.evaluation.autoattack=standard` adds AutoAttack, which saves its state after every batch, so
that the same command resumes a killed one; `--config.evaluation.skip_attacks=True` attacks nothing. Each attack, radius and corruption is saved in
parts/ when it is done and measured again only if it changes. The folder gets evaluation.json, examples.npz (some images, clean and attacked) and report.html.
--checkpoint=best (on the validation split; the default), latest, or a step.
"""
import pathlib

import jax
from absl import flags

from experiments.common import cli
from experiments.common.evaluation import run
from vmamba_jax import reports
from vmamba_jax.core.run_folder import run_folder

__all__ = ["run"]
SAVED = pathlib.Path(__file__).parent.parent / "configs" / "saved.py"


def _own_config(argv):
    """The arguments with the config that the workdir's run saved, if they name none."""
    workdir = cli.argument(argv, "workdir")
    if cli.argument(argv, "config") is not None or workdir is None:
        return argv
    with cli.checking():
        saved = run_folder(workdir) / "config.json"
        absent = not saved.is_file()
    if absent:
        raise cli.ConfigError(f"workdir={workdir}: expected a folder with config.json; train a run there or give --config")
    return [f"--config={SAVED}:{saved}", *argv]


def _flags():
    flags.DEFINE_string("checkpoint", "best", "best, latest or a step")
    return ("checkpoint",)


def main(config, workdir, checkpoint):
    """Evaluate, write report.html, and print the table, the warnings and the report's path."""
    run(config, workdir, int(checkpoint) if checkpoint.isdigit() else checkpoint, command=cli.command("experiments.evaluate"))
    if jax.process_index() != 0:
        return  # only the first process has written the files
    with cli.checking():
        finished = reports.read_run(workdir)
    page = reports.write(finished.folder / "report.html", [finished], title=f"{config.model.name} on {config.data.name}",
                         commands=[line for part in (finished.results, finished.evaluation) if (line := part.get("command"))])
    warnings = [f"warning: {result['label']}: {warning['meaning']} ({warning['sign']}: {warning['measured']})"
                for result in finished.evaluation["attacks"].values() if "warnings" in result for warning in result["warnings"]]
    cli.report("\n".join([reports.tables.text([finished]), *warnings, f"report: {page}"]))


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags, complete=_own_config)
