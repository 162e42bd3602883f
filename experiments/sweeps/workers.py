"""Several processes of one program on this machine that share the runs of a sweep, and one progress display over all of them."""
import os
import signal
import subprocess
import sys
import time

import jax
from absl import flags

from experiments.common import cli, environment
from experiments.sweeps import display, plan, records

POLL = 0.5  # seconds between two looks at the records
INSIDE = "VMAMBA_JAX_WORKER"  # environment variable that a process started by `run` has


def flag_names():
    """Define the flag that says how many processes share the runs. Returns its name."""
    flags.DEFINE_integer("workers", 1, "processes that share the runs on a CPU, each on its share of the cores; 0: one for each core")
    return ("workers",)


def count(workers):
    """Number of processes that the flag asks for, 1 inside one of them; ConfigError for a negative number, and for several on another platform than a CPU."""
    if os.getenv(INSIDE):
        return 1
    if workers < 0:
        raise cli.ConfigError(f"--workers={workers}: expected 0 (one for each core) or more")
    wanted = workers or environment.cores()
    if wanted > 1 and jax.default_backend() != "cpu":
        if workers:
            raise cli.ConfigError(f"--workers={workers}: expected 1 on {jax.default_backend()}, as a process takes all its devices")
        return 1
    return wanted


def run(config, workdir, processes, module, line):
    """Run a sweep by several processes of a program, and wait for them.

    Args:
        config: the sweep's.
        workdir: its folder.
        processes: how many.
        module: of the program, which gets the arguments of this process.
        line: `(planned, record, workdir)` gives the line about a run that ended.

    Returns:
        {run's name: its record}.

    Raises:
        ConfigError: the config cannot be expanded, or the folder holds runs of another config.
        RunError: a process ended before all runs had; the last lines that it wrote are in it.
        KeyboardInterrupt: on SIGINT and SIGTERM, after the processes have saved and ended.
    """
    workdir = cli.folder(workdir)
    planned = plan.expand(config)
    records.check(planned, workdir, reevaluate="--reevaluate" in cli.GIVEN)
    over = {each.name for each in planned if records.finished(each, workdir / each.name)}
    failures = {each.name: records.attempts(workdir / each.name) for each in planned}
    logs = [workdir / f"worker_{i}.log" for i in range(processes)]
    children = [_start([sys.executable, "-m", module, *cli.GIVEN], log, i, processes) for i, log in enumerate(logs)]
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with display.Display(planned, workdir, True) as shown:
            while True:
                ended = all(child.poll() is not None for child in children)
                for each in planned:
                    record = records.read(workdir / each.name) if each.name not in over else {}
                    if record.get("status") == "done" or (record.get("status") == "failed" and record["attempts"] > failures[each.name]):
                        over.add(each.name)
                        shown.say(line(each, record, workdir))
                if ended:
                    break
                time.sleep(POLL)
    except BaseException:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    found = {each.name: records.read(workdir / each.name) for each in planned}
    for child, log in zip(children, logs, strict=True):
        if child.returncode not in (0, 1, 2) or any(record.get("status") not in ("done", "failed") for record in found.values()):
            words = log.read_text(errors="replace").splitlines()
            raise cli.RunError(f"a process ended with status {child.returncode} before all runs had: see {log}", words[-5:])
        log.unlink()
    return found


def _start(command, log, i, processes):
    """One process, on its share of the cores; what it prints goes to `log`."""
    with open(log, "w", encoding="utf-8") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {INSIDE: "1"})
    if hasattr(os, "sched_setaffinity"):  # before JAX, which makes as many threads and devices as there are cores, has begun
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(child.pid, cores[i::processes] or [cores[i % len(cores)]])
    return child
