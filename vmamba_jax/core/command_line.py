"""Shared by the package's commands: a `cyclopts` app whose errors are one line, and the arguments that name a model and override its fields."""
import ast
import inspect
import sys
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from vmamba_jax.version import __version__

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]                # --name, without --no-name
Words = Annotated[list[str], Parameter(negative=(), consume_multiple=True)]       # --name A B C, or --name A --name B
Override = Annotated[Words, Parameter(help="Fields of the model as KEY=VALUE, e.g. num_classes=10 'dims=(32, 64)'.")]
ModelName = Annotated[str | None, Parameter(help="A name of the catalog (`vmamba-jax models`); a tag after a dot selects one of several releases.")]
Verbose = Annotated[Flag, Parameter(help="List everything that an error counts.")]


def app(name, about):
    """A `cyclopts.App` for `run`: without commands, of this package's version."""
    return cyclopts.App(name=name, help=about, version=__version__, exit_on_error=False, print_error=False, help_on_error=False,
                        result_action="return_value", default_parameter=Parameter(negative=()))


def run(app, argv=None):
    """Run one command of an app.

    Args:
        app: of `app`.
        argv: words after the program's name; None: those of this process.

    Returns:
        The command's own exit status, 0 for None, or 2 after one line on stderr (with --verbose also the error's `details`).
    """
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    try:
        if not argv:
            raise ValueError("expected a command; --help lists them")
        return app(argv) or 0
    except cyclopts.CycloptsError as error:
        print(f"error: {' '.join(str(error).split())} (--help explains)", file=sys.stderr)
    except Exception as error:  # at the top of a program: a command's user gets one line instead of a traceback
        message = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
        details, verbose = getattr(error, "details", ()), "--verbose" in argv
        hint = " (--verbose lists all)" if details and not verbose and has_verbose(app, argv) else ""
        print("\n  ".join([f"error: {message or type(error).__name__}{hint}", *(details if verbose else ())]), file=sys.stderr)
    return 2


def has_verbose(app, argv):
    """Whether the command that the words name has --verbose."""
    return "verbose" in inspect.signature(app.parse_args(argv)[0]).parameters


def overrides(words):
    """{field: value} of `key=value` words; a value is a Python literal, or else the text itself."""
    found = {}
    for text in words:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise ValueError(f"--override {text!r}: expected key=value")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found
