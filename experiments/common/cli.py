"""The command line that the programs share: `--config file.py:arg --config.field=value --workdir DIR`, errors on one line."""
import ast
import contextlib
import os
import pathlib
import re
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags
from rich import progress as rich_progress

from experiments.common import environment
from vmamba_jax import parallel

OVERRIDE = re.compile(r"--?config\.((?:\w+\.)*overrides)\.(\w+)=(.*)", re.DOTALL)


class ConfigError(ValueError):
    """Something the user wrote that cannot be run; shown as one line, without a traceback, and `details` (lines) below it."""

    def __init__(self, message, details=()):
        super().__init__(message)
        self.details = tuple(details)


class RunError(RuntimeError):
    """What ended a run that was set up rightly: a full disk, weights that diverged; shown as one line, without a traceback."""


class Stopped(Exception):
    """A run that ended early because it was asked to, saved; its message is shown and the status is 0."""


@contextlib.contextmanager
def checking(what):
    """Within it, a bad value, an unknown name or a missing file is the user's: it becomes a ConfigError about `what`."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ConfigError(f"{what}: {error.args[0] if isinstance(error, KeyError) and error.args else error}") from error


@contextlib.contextmanager
def endings():
    """Within it, what ends a program early is told in a line: status 2 for an error, 0 for a run that was asked to stop and saved."""
    try:
        yield
    except (ConfigError, RunError) as error:
        fail(error)
    except Stopped as stop:
        print(stop)
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from the last checkpoint")


def main(run, *, doc, define=None, complete=None):
    """Run a program: parse, prepare the machine, call run(config, workdir, **other flags), and leave with 0, or 2 after one line of error.

    doc: what --help prints. define: declares further flags and returns their names. complete: may change the arguments before they are parsed.
    """
    config = config_flags.DEFINE_config_file("config", help_string="configuration, file.py or file.py:argument", sys_argv=sys.argv)
    workdir = flags.DEFINE_string("workdir", None, "folder that the run writes to, and resumes from")
    coordinator = flags.DEFINE_string("coordinator", None, "several hosts: HOST:PORT of process 0 (or VMAMBA_JAX_COORDINATOR)")
    processes = flags.DEFINE_integer("processes", None, "several hosts: how many processes (or VMAMBA_JAX_PROCESSES)")
    process = flags.DEFINE_integer("process", None, "several hosts: which of them this one is, from 0 (or VMAMBA_JAX_PROCESS)")
    patience = flags.DEFINE_integer("join_timeout", 300, "several hosts: seconds to wait for the others at the start")
    cluster = flags.DEFINE_bool("cluster", False, "several hosts: let JAX find the others (Cloud TPU, Slurm, ...)")
    more = define() if define else ()

    def parse(argv):
        if {"--help", "-help", "-h"} & set(argv):
            print(doc.strip())
            sys.exit(0)
        try:
            argv[1:] = sys.argv[1:] = complete(argv[1:]) if complete else argv[1:]
            file = (argument(argv, "config") or "").split(":")[0]
            if file and not os.path.isfile(file):  # ml_collections would say so only when a field is read
                raise ConfigError(f"no config file {file!r}")
            overrides = [match for word in argv[1:] if (match := OVERRIDE.fullmatch(word))]
            argv[1:] = sys.argv[1:] = [word for word in argv[1:] if not OVERRIDE.fullmatch(word)]
            rest = flags.FLAGS(argv)
            for name in ("config", "workdir"):
                if flags.FLAGS[name].value is None:
                    raise ConfigError(f"--{name} is needed; --help says more")
            override(config.value, overrides)
            if len(rest) > 1:
                raise ConfigError(f"unexpected argument {rest[1]!r}")
            return rest
        except Exception as error:
            fail(error)

    def program(_):
        environment.prepare()
        with endings():
            with checking("several hosts"):
                parallel.initialize(coordinator.value, processes.value, process.value, auto=cluster.value,
                                    initialization_timeout=patience.value)
            run(config.value, workdir.value, **{name: flags.FLAGS[name].value for name in more})

    start(program, flags_parser=parse)


def override(config, matches):
    """Set the fields that `OVERRIDE` found. A model's overrides may get any field of its module, also one that the config does not name."""
    for section, name, text in (match.groups() for match in matches):
        with checking(f"--config.{section}.{name}={text}"):
            fields = config
            for part in section.split("."):
                fields = fields[part]
            with contextlib.suppress(ValueError, SyntaxError):  # what is no Python literal is a string
                text = ast.literal_eval(text)
            with fields.unlocked():
                fields[name] = text


def start(program, **options):
    """absl's app.run without what the libraries below tell of themselves."""
    logging.set_verbosity(logging.ERROR)
    app.run(program, **options)


def bar(name, total, shown, count=None):
    """A program's progress bar with one task of `total`; the first process of several draws it. count: its column, of per cent by default."""
    made = rich_progress.Progress(rich_progress.TextColumn(name), rich_progress.BarColumn(), count or rich_progress.TaskProgressColumn(),
                                  rich_progress.TimeRemainingColumn(), rich_progress.TextColumn("{task.description}"),
                                  disable=not shown or jax.process_index() != 0)
    made.add_task("", total=total)
    return made


def tell(text):
    """Print, on the first process of several."""
    if jax.process_index() == 0:
        print(text)


def folder(path):
    """The folder at `path`, made where absent; a ConfigError where it cannot be."""
    path = pathlib.Path(path)
    with checking("workdir"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def argument(argv, name):
    """The value of --name in raw arguments, or None."""
    for given, following in zip(argv, [*argv[1:], None], strict=True):
        key, equals, value = given.partition("=")
        if key in (f"--{name}", f"-{name}"):
            return value if equals else following
    return None


def fail(error):
    """Print an error as one line, its details below, and leave with status 2."""
    while error.args and isinstance(error.args[0], Exception):  # ml_collections wraps a KeyError in an AttributeError
        error = error.args[0]
    text = f"unknown field {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = lines[-1] if "Traceback" in text else " ".join(lines)
    print("\n  ".join([f"error: {text or type(error).__name__}", *getattr(error, "details", ())]), file=sys.stderr)
    sys.exit(2)
