"""Locate the hidden states that lead a state space model astray, and repair them: the study of Vision Mamba Mender with its controls.

    python -m experiments.mender --config configs/mender.py --workdir runs/mender
    python -m experiments.mender --config configs/mender.py:model=vim --workdir runs/mender_vim --config.seeds="(0,1,2,3,4)"

A sweep (see experiments.sweep) whose repaired runs begin with the weights of the run of the same seed in group base. Each run's folder gets, besides
the files of a sweep's run, mender.json. The sweep's folder gets mender.html, mender.json and summary.md; the same command resumes a killed study, and
--page draws mender.html again from the JSON files alone. Exit status: as of experiments.sweep.
"""
import shlex

from absl import flags

from experiments import sweep
from experiments.common import cli
from experiments.mending import findings, runs
from experiments.sweeps import plan
from vmamba_jax import reports


def run(config, workdir, *, progress=True, command=""):
    """Run every unfinished run, and write the page. Returns {run's name: its record}, as `sweep.run`; arguments and errors are those of it."""
    workdir = cli.folder(workdir)
    found = sweep.run(config, workdir, progress=progress, commands=(command,) if command else (), train=runs.train, evaluate=findings.evaluate)
    for each in plan.expand(config):  # those measured by an earlier version; the others are not measured again
        if found[each.name].get("status") == "done":
            findings.evaluate(each.config, workdir / each.name, progress=progress)
    reports.write_mender(workdir, commands=(command or f"python -m experiments.mender --workdir {shlex.quote(str(workdir))}",))
    return found


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved JSON")
    return ("page",)


def main(config, workdir, page):
    command = cli.command("experiments.mender")
    if page:
        with cli.checking("--page"):
            reports.write_mender(workdir, commands=(f"python -m experiments.mender --config configs/mender.py --workdir {shlex.quote(str(workdir))}",))
        return
    sweep.keep_programs(workdir)
    found = run(config, workdir, command=command)
    print(f"{reports.mender_text(reports.read_mender(workdir))}\n\npage: {workdir}/mender.html")
    sweep.end(found)


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags)
