"""The shared command line: `--config file.py:arg --config.field=value --workdir DIR`, with one-line errors.

`--config` takes a file or the name of a shipped config, `--config digits:objective=pgd_at`. With it, `--help` lists every key, `--print` writes
the resolved config as JSON and runs nothing; `--quiet` draws no progress and prints errors alone.
"""
import ast
import contextlib
import json
import os
import pathlib
import re
import shlex
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from configs import fields
from experiments.common import environment
from vmamba_jax import parallel
from vmamba_jax.commands import configs
from vmamba_jax.commands.programs import LAUNCHED
from vmamba_jax.core.objects import is_url
from vmamba_jax.core.progress import ProgressBar
from vmamba_jax.core.run_folder import run_folder
from vmamba_jax.training import Stopped
from vmamba_jax.version import __version__

SHIPPED = pathlib.Path(fields.__file__).parent
GIVEN = []  # the program's arguments as they were given
QUIET = []  # not empty: --quiet was given
FIELD = re.compile(r"--?config\.([\w.]+)")
OVERRIDE = re.compile(r"--?config\.((?:\w+\.)*(?:overrides|options))\.(\w+)=(.*)", re.DOTALL)


class ConfigError(ValueError):
    """A user's input that cannot be run: printed as one line without a traceback, followed by the lines of `details`."""

    def __init__(self, message, details=()):
        super().__init__(message)
        self.details = tuple(details)


class RunError(RuntimeError):
    """A valid run that failed, such as by a full disk or diverged weights: printed like a `ConfigError`."""

    def __init__(self, message, details=()):
        super().__init__(message)
        self.details = tuple(details)


@contextlib.contextmanager
def checking(what=None):
    """A context in which a bad value, an unknown name or a missing file raises a ConfigError.

    Args:
        what: what the error is about, the start of its message; None: the message is the error's own.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ConfigError(str(message) if what is None else f"{what}: {message}") from error


@contextlib.contextmanager
def exit_on_error():
    """A context that turns expected errors into one line and exit status 2; a run that a signal stopped exits with 0 after saving."""
    try:
        yield
    except (ConfigError, RunError) as error:
        fail(error)
    except Stopped as stop:
        print(stop)
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command resumes from the last checkpoint")


def main(run, *, doc, define=None, complete=None, workdir=None):
    """Run a program: parse the arguments, prepare the machine, call `run`; exits with 0, or with 2 after a one-line error.

    Args:
        run: `run(config, workdir, **further flags)`.
        doc: text that --help prints.
        define: function that declares further flags and returns their names.
        complete: function from the raw arguments to those that are parsed.
        workdir: default of --workdir; None: it must be given.
    """
    app.define_help_flags()
    known = set(flags.FLAGS)
    config = config_flags.DEFINE_config_file("config", help_string="configuration, file.py or file.py:argument", sys_argv=sys.argv)
    target = flags.DEFINE_string("workdir", workdir, "folder that the run writes to and resumes from")
    coordinator = flags.DEFINE_string("coordinator", None, "several hosts: HOST:PORT of process 0 (or VMAMBA_JAX_COORDINATOR)")
    processes = flags.DEFINE_integer("processes", None, "several hosts: number of processes (or VMAMBA_JAX_PROCESSES)")
    process = flags.DEFINE_integer("process", None, "several hosts: index of this process, from 0 (or VMAMBA_JAX_PROCESS)")
    patience = flags.DEFINE_integer("join_timeout", 300, "several hosts: seconds to wait for the others at the start")
    cluster = flags.DEFINE_bool("cluster", False, "several hosts: JAX finds the others (Cloud TPU, Slurm, ...)")
    printed = flags.DEFINE_bool("print", False, "print the resolved config as JSON, and run nothing")
    quiet = flags.DEFINE_bool("quiet", False, "print errors alone")
    more = define() if define else ()

    def parse(argv):
        wants_help = {"--help", "-help", "-h"} & set(argv)
        if wants_help and argument(argv, "config") is None:
            print(f"{doc.strip()}\n\n{flag_lines(set(flags.FLAGS) - known)}\nWith --config, --help lists every key of the config.")
            sys.exit(0)
        if "--version" in argv:
            print(__version__)
            sys.exit(0)
        GIVEN[:] = argv[1:]
        try:
            argv[1:] = sys.argv[1:] = shipped([word for word in (complete(argv[1:]) if complete else argv[1:]) if word not in wants_help])
            overrides = [match for word in argv[1:] if (match := OVERRIDE.fullmatch(word))]
            argv[1:] = sys.argv[1:] = [word for word in argv[1:] if not OVERRIDE.fullmatch(word)]
            rest = parsed(argv, config)
            for name in ("config",) if wants_help or printed.value else ("config", "workdir"):
                if flags.FLAGS[name].value is None:
                    raise ConfigError(f"--{name}: expected a value; see --help")
            override(config.value, overrides)
            if len(rest) > 1:
                raise ConfigError(f"unexpected argument {rest[1]!r}")
            if wants_help or printed.value:
                print(f"{doc.strip()}\n\n{fields.table(config.value)}" if wants_help else json.dumps(config.value.to_dict(), indent=1))
                sys.exit(0)
            QUIET[:] = [True] * quiet.value
            return rest
        except Exception as error:
            fail(error)

    def program(_):
        environment.prepare()
        with exit_on_error():
            with checking("several hosts"):
                parallel.initialize(coordinator.value, processes.value, process.value, auto=cluster.value,
                                    initialization_timeout=patience.value)
            from vmamba_jax.reports.exports import exported  # Matplotlib, which no parsing of arguments needs
            with exported(target.value):
                run(config.value, target.value, **{name: flags.FLAGS[name].value for name in more})

    start(program, flags_parser=parse)


def shipped(argv):
    """The arguments with the file of each shipped config that --config names: `digits`, `digits.py` or `configs/digits.py`, where no such file exists."""
    made = list(argv)
    for i, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name not in ("--config", "-config") or (not equals and i + 1 == len(argv)):
            continue
        file, colon, rest = (value if equals else argv[i + 1]).partition(":")
        if not file or os.path.isfile(file):
            continue
        found = SHIPPED / f"{configs.stem(file)}.py"
        if not found.is_file():  # ml_collections would raise only when a field is read
            raise ConfigError(f"--config={file}: expected an existing file, or one of {', '.join(configs.shipped(SHIPPED))}")
        made[i if equals else i + 1] = f"{name}={found}{colon}{rest}" if equals else f"{found}{colon}{rest}"
    return made


def parsed(argv, config):
    """What absl leaves of the arguments; a ConfigError about a field that the config lacks names those that its section has."""
    try:
        return flags.FLAGS(argv)
    except Exception as error:
        file, keys = argument(argv, "config"), [match[1] for word in argv if (match := FIELD.match(word))]
        if file is None or not keys:
            raise
        sys.argv[1:] = [f"--config={file}"]
        flags.FLAGS.unparse_flags()
        messages = []
        with contextlib.suppress(Exception):  # the config itself is at fault: the first error says so
            flags.FLAGS(sys.argv)
            messages = [message for key in keys if (message := fields.unknown(config.value, key))]
        raise (ConfigError(messages[0]) if messages else error) from None


def override(config, matches):
    """Set the fields that `OVERRIDE` matched, also those that the config lacks: any field of a model's module, any option of a data set."""
    for section, name, text in (match.groups() for match in matches):
        with checking(f"--config.{section}.{name}={text}"):
            fields = config
            for part in section.split("."):
                fields = fields[part]
            if not isinstance(fields.get(name), str):
                with contextlib.suppress(ValueError, SyntaxError):  # text that is not a Python literal is a string
                    text = ast.literal_eval(text)
            with fields.unlocked():
                fields[name] = text


def flag_lines(names):
    """A line for each flag: its name, default and meaning."""
    found = [flags.FLAGS[name] for name in sorted(names) if "." not in name]
    return "\n".join(f"  --{flag.name:<14} {flag.help}" + (f" (default {flag.value})" if flag.value not in (None, False) else "") for flag in found)


def start(program, **options):
    """absl's app.run with the log messages of the libraries off."""
    logging.set_verbosity(logging.ERROR)
    app.run(program, **options)


def bar(name, total, shown, count=None):
    """A progress bar with one task, drawn by the first process.

    Args:
        name: text before the bar.
        total: steps of the task.
        shown: whether to draw it.
        count: rich column of the count; None: per cent.
    """
    return ProgressBar(name, total, count=count, shown=shown and not QUIET)


def invocation(name):
    """How a program of `experiments` is called here: "python -m experiments.train", or "vmamba-jax train" from that command."""
    return f"vmamba-jax {name}" if os.getenv(LAUNCHED) else f"python -m experiments.{name}"


def command(program):
    """The shell line that this program was started with; "" if it was not started from a command line."""
    return f"{invocation(program.removeprefix('experiments.'))} {shlex.join(GIVEN)}".rstrip() if GIVEN else ""


def report(text):
    """Print on the first process, unless --quiet was given."""
    if jax.process_index() == 0 and not QUIET:
        print(text)


def folder(path, remote=False):
    """The folder at `path`, created if absent; a ConfigError if that fails.

    Args:
        path: of a folder.
        remote: the program can use a folder in a bucket, at a URL.
    """
    with checking(f"workdir={path}"):
        if not remote and is_url(path):
            raise ValueError("expected a local folder; only experiments.train and experiments.evaluate take URLs")
        path = run_folder(path)
        path.mkdir(parents=True, exist_ok=True)
    return path


def argument(argv, name):
    """The value of --name in raw arguments; None if it is absent."""
    for given, following in zip(argv, [*argv[1:], None], strict=False):  # the last has none
        key, equals, value = given.partition("=")
        if key in (f"--{name}", f"-{name}"):
            return value if equals else following
    return None


def fail(error):
    """Print an error as one line followed by its details, and exit with status 2."""
    while error.args and isinstance(error.args[0], Exception):  # ml_collections wraps a KeyError in an AttributeError
        error = error.args[0]
    text = f"unknown field {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = lines[-1] if "Traceback" in text else " ".join(lines)
    print("\n  ".join([f"error: {text or type(error).__name__}", *getattr(error, "details", ())]), file=sys.stderr)
    sys.exit(2)
