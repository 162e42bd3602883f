"""Locate the hidden states that lead a state space model astray, and repair them: the study of Vision Mamba Mender with its controls.

    python -m experiments.mender --config configs/mender.py --workdir runs/mender
    python -m experiments.mender --config configs/mender.py:model=vim --workdir runs/mender_vim --config.seeds="(0,1,2,3,4)"

A sweep (see experiments.sweep) whose repaired runs begin with the weights of the run of the same seed in group base. Each run's folder gets, besides
the files of a sweep's run, mender.json. The sweep's folder gets mender.html, mender.json and summary.md; the same command resumes a killed study, and
--page draws mender.html again from the JSON files alone. Exit status: as of experiments.sweep.
"""
from experiments.common import cli
from experiments.mending import findings, runs
from experiments.sweeps import study
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Run every unfinished run, and write the page. Returns {run's name: its record}, as `sweep.run`; arguments and errors are those of it."""
    return study.run(config, workdir, name="mender", evaluate=findings.evaluate, write=reports.write_mender, progress=progress, command=command,
                     train=runs.train)


def main(config, workdir, **options):
    study.main(config, workdir, **options, name="mender", file="configs/mender.py", run=run, write=reports.write_mender,
               text=lambda folder: reports.mender_text(reports.read_mender(folder)))


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=study.flag_names)
