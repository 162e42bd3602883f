"""What the package's own commands share: one line on a failure, overrides of a model's fields."""
import argparse
import ast
import sys


class Parser(argparse.ArgumentParser):
    """One line on an error, without the usage."""

    def error(self, message):
        self.exit(2, f"error: {message} (--help explains)\n")


def run(parser, argv=None):
    """Parse, call the chosen command's `run(args)`, return the exit status: 0, or 2 after one line on stderr."""
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except Exception as error:  # a program's last line of defence: its user asked for one line, not for a traceback
        message = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
        print(f"error: {message or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


def override(text):
    """`key=value` as (key, a Python literal, or the text itself where it is none)."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def add_model_arguments(command):
    """--model and --override of a command that makes a model of the catalog."""
    command.add_argument("--model", required=True, help="a name of vmamba_jax.list_models(), with a release's tag after a dot where it has several")
    command.add_argument("--override", action="extend", nargs="+", default=[], type=override, metavar="KEY=VALUE",
                         help="fields of the model, e.g. num_classes=10 or 'dims=(32, 64)'")
