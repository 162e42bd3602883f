"""run.json in each run's folder: who runs it, whether it finished or failed, and with which config."""
import hashlib
import json
import os
import socket
import time

from configs import base
from experiments.common import environment, results
from experiments.common.cli import ConfigError

FILE = "run.json"
NEEDED = ("results.json", "evaluation.json")
EVALUATION = "evaluation."


def read(folder):
    """The run's record, {} if it never began."""
    return results.load_json(folder / FILE) or {}


def finished(planned, folder):
    """Whether the run is done with this very config, and its result files are those that were recorded."""
    record = read(folder)
    return record.get("status") == "done" and _complete(record["config"]) == results.plain(planned.config) and \
        record["files"] == _digests(folder) and not _outdated(folder)


def _outdated(folder):
    """Whether the run was evaluated by another version, so that it must be evaluated again; its training counts."""
    content = results.load_json(folder / "evaluation.json") or {}
    return "identity" in content and content["identity"]["versions"] != results.measuring_versions()


def attempts(folder):
    """How often the run has failed."""
    record = read(folder)
    return record.get("attempts", 0)


def check(plan, workdir, reevaluate):
    """Raise ConfigError, with run and fields, for every run whose folder holds results or checkpoints of another config.

    Args:
        plan: list of `Planned`.
        workdir: the sweep's folder.
        reevaluate: whether the fields of config.evaluation may differ from those of finished runs.
    """
    differing = []
    for planned in plan:
        folder = workdir / planned.name
        record = read(folder)
        done = record.get("status") == "done"
        old = record.get("config") if done else results.saved_config(folder)
        for field, was, now in results.differences(_complete(old), results.plain(planned.config)) if old is not None else ():
            if not field.startswith(EVALUATION) or (done and not reevaluate):
                differing.append((planned.name, field, json.dumps(was), json.dumps(now)))
    if not differing:
        return
    rows = [("run", "field", "was", "is now"), *differing]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    evaluation_only = all(field.startswith(EVALUATION) for _, field, _, _ in differing)
    hint = "; --reevaluate evaluates these runs again without training" if evaluation_only else ""
    raise ConfigError(f"{workdir} holds runs of another config: expected the fields below as they were, or another --workdir{hint}",
                      ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows])


def begin(planned, folder):
    """Record that this process runs it. Returns the record, for `end`."""
    record = {"name": planned.name, "group": planned.group, "seed": planned.seed, "status": "running", "attempts": attempts(folder),
              "process": os.getpid(), "host": socket.gethostname(), "since": environment.now(), "time": time.time()}
    results.save_json(folder / FILE, record)
    return record


def stop(record, folder):
    """Record that the run was stopped, and can be resumed."""
    results.save_json(folder / FILE, record | {"status": "stopped"})


def end(record, planned, folder, seconds, reason=""):
    """Record how it ended: done, or failed for a reason. Returns the record."""
    record = record | {"status": "failed" if reason else "done", "seconds": round(seconds, 1), "finished": environment.now(), "config": results.plain(planned.config)}
    record |= {"reason": reason, "attempts": record["attempts"] + 1} if reason else {"files": _digests(folder)}
    results.save_json(folder / FILE, record)
    return record


def _complete(config):
    """A saved config with every key; keys newer than it have their neutral values."""
    return results.plain(base.complete(config))


def _digests(folder):
    """SHA-256 of the result files; None for a missing one."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else None for name in NEEDED}
