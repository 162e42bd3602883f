"""Train and evaluate many runs: every group of changes to one base config, with every seed, compared on one page.

    python -m experiments.sweep --config configs/digits_sweep.py --workdir runs/digits_sweep
    python -m experiments.sweep --config configs/digits_sweep.py:seeds=5 --workdir runs/digits_sweep --config.base.epochs=10

A config is a file whose `get_config` returns `configs.sweeps.sweep(base, runs={name: changes}, seeds=(0, 1, 2))`, or a product of `axes` instead of
`runs`. Each run gets a folder WORKDIR/<group>/seed_<seed> with the files of experiments.train and experiments.evaluate and their reports.

The same command resumes a killed sweep: a finished run is not repeated, an interrupted one continues from its checkpoint, a failed one is tried
again. Started several times, on one host or on several that share WORKDIR, each process takes the next free run; --workers=N starts N of them on this
machine, each on its share of the cores. Other runs continue when one fails. The folder gets sweep.html, summary.csv, summary.md and summary.tex.
--reevaluate: accept changed config.base.evaluation fields, and evaluate finished runs again without training. Exit status: 0, or 1 if some runs
failed, or 2 if all did or the config cannot be run. More: docs/sweeps.md.
"""
import contextlib
import os
import pathlib
import shlex
import sys
import time
import traceback

import jax
from absl import flags

from experiments import evaluate as evaluation
from experiments import train as training_program
from experiments.common import cli, environment, results
from experiments.sweeps import display, plan, records
from experiments.sweeps import workers as processes
from vmamba_jax import reports, training

REDRAW = 60  # seconds between two drawings of the page while runs follow one another


def run(config, workdir, *, progress=True, reevaluate=False, commands=(), train=training_program.run, evaluate=evaluation.run):
    """Run every run of the sweep that is not finished and that no other process has taken, and write page and summary.

    Args:
        config: of `configs.sweeps.sweep`.
        workdir: the sweep's folder.
        progress: whether to draw the progress display.
        reevaluate: evaluate finished runs again if fields of config.base.evaluation differ from those they were evaluated with.
        commands: shell lines that the page gives to reproduce it.
        train, evaluate: `(config, workdir, *, progress)` of one run.

    Returns:
        {run's name: its record}, a record being {"status": "done", "failed" or "running", "reason", "seconds", ...}; {} if it did not begin.

    Raises:
        ConfigError: the config cannot be expanded, or the folder holds runs of another config.
        Stopped: a signal stopped the training.
    """
    if jax.process_count() > 1:
        raise cli.ConfigError(f"--processes={jax.process_count()}: expected one process for each sweep program; start the program once on each host")
    workdir = cli.folder(workdir)
    planned = plan.expand(config)
    records.check(planned, workdir, reevaluate)
    failed = {each.name: records.attempts(workdir / each.name) for each in planned}  # these failures may be tried again, later ones not
    commands = commands or (f"{cli.invocation('sweep')} --workdir {shlex.quote(str(workdir))}",)
    index = _index(config, planned)
    _write(workdir, index, commands)
    drawn = time.monotonic()
    with display.Display(planned, workdir, progress) as shown:
        while (taken := _take(planned, workdir, failed)) is not None:
            each, lock = taken
            with lock:
                record = _run(each, workdir / each.name, train, evaluate, commands)
            shown.say(line(each, record, workdir))
            if time.monotonic() - drawn > REDRAW:
                _write(workdir, index, commands)
                drawn = time.monotonic()
    _write(workdir, index, commands)
    return {each.name: records.read(workdir / each.name) for each in planned}


def _take(planned, workdir, failed):
    """(run, its lock as a context manager) of the first run that is neither finished, nor failed since this process began, nor taken; or None."""
    for each in planned:
        folder = workdir / each.name
        is_open = lambda each=each, folder=folder: records.attempts(folder) <= failed[each.name] and not records.finished(each, folder)
        if not is_open():
            continue
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(training.one_run(folder))
            except training.Locked:
                continue
            if is_open():  # another process may have finished it in between
                return each, stack.pop_all()
    return None


def _run(planned, folder, train, evaluate, commands):
    """Train and evaluate one run, and write its report. Returns its record; a failure is recorded, not raised."""
    record, since, reason = records.begin(planned, folder), time.perf_counter(), ""
    error_file = folder / "error.txt"
    try:
        train(planned.config, folder, progress=False)
        evaluate(planned.config, folder, progress=False)
        finished = reports.read_run(folder, planned.name)
        reports.write(folder / "report.html", [finished], title=f"{planned.name}: {planned.config.model.name} on {planned.config.data.name}",
                      commands=[*commands, f"{cli.invocation('evaluate')} --workdir {shlex.quote(str(folder))}"])
        error_file.unlink(missing_ok=True)
    except (training.Stopped, KeyboardInterrupt):
        records.stop(record, folder)
        raise
    except Exception as error:  # the other runs go on
        expected = isinstance(error, (cli.ConfigError, cli.RunError))
        words = " ".join(" ".join([str(error), *getattr(error, "details", ())]).split())
        reason = words if expected else f"{type(error).__name__}: {words[:500]}"
        error_file.write_text(traceback.format_exc(), encoding="utf-8")
    return records.end(record, planned, folder, time.perf_counter() - since, reason)


def line(planned, record, workdir):
    """One line about a run that ended."""
    if record["status"] == "failed":
        return f"failed  {planned.name}: {record['reason']}"
    found = reports.read_run(workdir / planned.name, examples=False)
    robust = "" if not found.headline else (
        f", {reports.tables.percent(found.headline['robust_accuracy'])} under {reports.tables.attack_name(found.headline)}")
    return f"done    {planned.name}: {reports.tables.percent(found.evaluation['accuracy'])} clean{robust} ({display.clock(record['seconds'])})"


def _index(config, planned):
    """Content of sweep.json: the sweep's config and its runs; what became of each is in its own folder."""
    devices = jax.devices()
    return {"config": results.plain(config), "runs": [{"name": each.name, "group": each.group, "axes": each.axes, "seed": each.seed} for each in planned],
            "groups": list(dict.fromkeys(each.group for each in planned)), "versions": environment.versions(), "commit": results.commit(),
            "device": f"{devices[0].device_kind} x {len(devices)}"}


def _write(workdir, index, commands):
    """Write sweep.json, page and summary; one process at a time."""
    with waiting(workdir):
        results.save_json(workdir / "sweep.json", index)
        reports.write_sweep(workdir, reports.read_sweep(workdir), commands=commands)


@contextlib.contextmanager
def waiting(folder):
    """Hold the lock of a folder, waiting while another process has it."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(training.one_run(folder))
                break
            except training.Locked:
                time.sleep(0.1)
        yield


def keep_programs(workdir):
    """Keep compiled programs in the sweep's folder, as runs of one group share theirs, unless JAX's own setting names a folder."""
    if not os.getenv("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(workdir).absolute() / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def end(found):
    """End the process with status 1 if some runs failed; RunError if all did."""
    failed = [name for name, record in found.items() if record.get("status") == "failed"]
    if failed and len(failed) == len(found):
        reasons = [f"{name}: {found[name]['reason']}" for name in failed]
        raise cli.RunError(f"none of the {len(failed)} runs was done: {reasons[0]}", reasons[1:])
    if failed:
        print(f"error: {len(failed)} of {len(found)} runs failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def _flags():
    flags.DEFINE_bool("reevaluate", False, "evaluate finished runs again if config.base.evaluation differs from what they were evaluated with")
    return ("reevaluate", *processes.flag_names())


def main(config, workdir, reevaluate, workers=1):
    if (wanted := processes.count(workers)) > 1:
        found = processes.run(config, workdir, wanted, "experiments.sweep", line)
    else:
        found = run(config, workdir, reevaluate=reevaluate, commands=(cli.command("experiments.sweep"),))
    cli.report(f"{reports.sweep_text(reports.read_sweep(workdir))}\n\npage: {workdir}/sweep.html")
    end(found)


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags)
