"""Shared by the package's commands: one line per error, and the arguments that name a model and override its fields."""
import argparse
import ast
import sys


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message):
        self.exit(2, f"error: {message} (--help explains)\n")


def run(parser, argv=None):
    """Parse the arguments, call `run(args)` of the chosen command, and return the exit status: its own, 0 for None, or 2 after one line on stderr
    (with --verbose also the error's `details`).
    """
    args = parser.parse_args(argv)
    try:
        status = args.run(args)
    except Exception as error:  # at the top of a program: a command's user gets one line instead of a traceback
        message = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
        details, verbose = getattr(error, "details", ()), getattr(args, "verbose", None)
        hint = " (--verbose lists all)" if details and verbose is False else ""
        print("\n  ".join([f"error: {message or type(error).__name__}{hint}", *(details if verbose else ())]), file=sys.stderr)
        return 2
    return status or 0


def add_verbose(command):
    """Add --verbose, with which an error is followed by its details."""
    command.add_argument("--verbose", action="store_true", help="list everything that an error counts")


def override(text):
    """(key, value) of `key=value`; the value is a Python literal, or else the text itself."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r}: expected key=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def add_model_arguments(command, required=True):
    """Add --model and --override to a command that creates a model of the catalog."""
    command.add_argument("--model", required=required, help="a name of vmamba_jax.list_models(); a tag after a dot selects one of several releases")
    command.add_argument("--override", action="extend", nargs="+", default=[], type=override, metavar="KEY=VALUE",
                         help="fields of the model, e.g. num_classes=10 or 'dims=(32, 64)'")
