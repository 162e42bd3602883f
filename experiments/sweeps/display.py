"""Progress of a sweep: runs done, failed and running, time left, and the last metrics of each running run."""
import json
import os
import socket
import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from experiments.common import cli
from experiments.sweeps import records
from vmamba_jax.core import progress

SHOWN = {"loss": "loss {:.3f}", "validation/accuracy": "clean {:.1%}", "validation/robust_accuracy": "robust {:.1%}"}
TAIL = 8192  # bytes at the end of metrics.jsonl


class Display:
    """Context manager that draws the state of all runs of the sweep once a second, those of other processes too, from the files in their folders."""

    def __init__(self, plan, workdir, shown=True, console=None):
        self.plan, self.workdir, self.shown = plan, workdir, shown
        self.console = console or Console(quiet=not shown or bool(cli.QUIET), highlight=False)
        self._final = {}  # records that cannot change any more
        self._compiling = progress.Compiling()
        self._live = progress.Cell(self.render) if self.console.is_jupyter else Live(
            get_renderable=self.render, console=self.console, refresh_per_second=1, transient=True)

    def say(self, text):
        """Print a line above the progress display."""
        self.console.print(text, markup=False, soft_wrap=True)

    def render(self):
        """The display as a rich renderable."""
        found = [self._record(planned) for planned in self.plan]
        count = {status: sum(record.get("status") == status for record in found) for status in ("done", "failed", "running")}
        left = time_left(found, time.time())
        head = Table.grid(padding=(0, 2))
        head.add_row("sweep", ProgressBar(total=len(found), completed=count["done"] + count["failed"], width=30), f"{count['done']} of {len(found)} runs done",
                     f"{count['running']} running", f"{count['failed']} failed" if count["failed"] else "",
                     "time left unknown" if left is None else f"{clock(left)} left")
        rows = Table.grid(padding=(0, 2))
        for planned, record in zip(self.plan, found, strict=True):
            if record.get("status") == "running":
                own = (record["host"], record["process"]) == (socket.gethostname(), os.getpid())
                doing = activity(self.workdir / planned.name) + (f", {progress.WORD}" if own and self._compiling.now else "")
                rows.add_row(f"  {planned.name}", clock(time.time() - record["time"]), doing, f"{record['host']}:{record['process']}")
        return Group(head, rows)

    def _record(self, planned):
        if planned.name not in self._final:
            try:
                record = records.read(self.workdir / planned.name)
            except (OSError, ValueError):
                return {}
            if record.get("status") != "done":
                return record
            self._final[planned.name] = record
        return self._final[planned.name]

    def __enter__(self):
        if self.shown:
            self._compiling.__enter__()
            self._live.start()
        return self

    def __exit__(self, *exc):
        if self.shown:
            self._live.stop()
            self._compiling.__exit__(*exc)


def time_left(found, now):
    """Seconds until the last run finishes, from the mean time of those done; None before the first is done.

    Args:
        found: record of every run, {} for one that did not begin.
        now: seconds since the epoch.
    """
    done = [record["seconds"] for record in found if record.get("status") == "done"]
    if not done:
        return None
    mean = sum(done) / len(done)
    running = [max(0.0, mean - (now - record["time"])) for record in found if record.get("status") == "running"]
    return (sum(running) + mean * sum(not record for record in found)) / max(1, len(running))


def activity(folder):
    """What a run is doing: its last step and metrics, or that it is being evaluated."""
    if (folder / "results.json").is_file():
        return "evaluating"
    values = {}
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            values |= json.loads(line)
        except (ValueError, TypeError):  # the first line of the tail, or one that is being written
            continue
    if "step" not in values:
        return "starting: reads its data and compiles"
    return ", ".join([f"training, step {values['step']}", *(text.format(values[name]) for name, text in SHOWN.items() if name in values)])


def clock(seconds):
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
