"""Inspects and converts foreign weights from the command line.

    python -m vmamba_jax.checkpoints inspect weights.pth
    python -m vmamba_jax.checkpoints convert weights.pth --model vmamba_tiny --out DIR [--override num_classes=10 ...] [--overwrite]

`inspect` lists the arrays of a .pth, .pt or .safetensors file; `convert` writes them as Flax variables that `checkpoints.load_variables`
reads. An error is one line on stderr and exit status 2.
"""
import importlib.metadata
import os
import sys

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text

from vmamba_jax.checkpoints.convert import convert
from vmamba_jax.checkpoints.store import save_variables
from vmamba_jax.checkpoints.torch_files.read import read_torch
from vmamba_jax.core import command_line, files
from vmamba_jax.models import catalog
from vmamba_jax.version import __version__

PACKAGES = ("jax", "flax", "orbax-checkpoint", "numpy")  # their versions go into the metadata


def main(argv=None):
    """Run one command and return the exit status."""
    return command_line.run(parser(), argv)


def parser():
    top = command_line.Parser(prog="python -m vmamba_jax.checkpoints", description="Reads PyTorch and safetensors weights, without PyTorch.")
    commands = top.add_subparsers(required=True, metavar="command", parser_class=command_line.Parser)
    inspect = commands.add_parser("inspect", help="list the names, shapes and types in a file")
    converting = commands.add_parser("convert", help="convert a file to the variables of one of this package's models")
    for command in (inspect, converting):
        command.add_argument("weights", help=".pth, .pt or .safetensors file")
    command_line.add_model_arguments(converting)
    converting.add_argument("--out", required=True, help="folder to write")
    converting.add_argument("--overwrite", action="store_true", help="replace an earlier result in the folder")
    inspect.set_defaults(run=run_inspect)
    converting.set_defaults(run=run_convert)
    return top


def run_convert(args):
    overrides = dict(args.override)
    model = catalog.create_model(args.model, **overrides)
    variables = convert(model, read_torch(args.weights))
    mean, std = preprocessing(args.model, model)
    leaves = jax.tree.leaves(variables["params"])
    metadata = {
        "model": args.model, "overrides": overrides, "source": os.path.basename(args.weights), "source_sha256": files.sha256(args.weights),
        "parameters": sum(x.size for x in leaves),
        "preprocessing": {"range": [0.0, 1.0], "mean": mean, "std": std},
        "versions": {"vmamba_jax": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}}
    save_variables(args.out, variables, metadata, overwrite=args.overwrite)
    print(f"{args.out}: {args.model}, {metadata['parameters']:,} parameters in {len(leaves)} arrays, from {metadata['source']}")


def preprocessing(name, model):
    """The catalog's mean and std of model `name`, as lists; None if overrides changed the number of channels."""
    entry = catalog.entry(name)
    fits = getattr(model, "in_channels", len(entry.mean)) == len(entry.mean)
    return (list(entry.mean), list(entry.std)) if fits else (None, None)


def run_inspect(args):
    flat = flatten(read_torch(args.weights))
    arrays = {name: x for name, x in flat.items() if isinstance(x, np.ndarray)}
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("name", overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("type", no_wrap=True)
    for name, x in arrays.items():
        table.add_row(rich.text.Text(name), rich.text.Text(str(x.shape)), x.dtype.name)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    size = sum(x.nbytes for x in arrays.values())
    print(f"{len(arrays)} arrays, {sum(x.size for x in arrays.values()):,} elements, {size / 1e6:,.3f} MB; {len(flat) - len(arrays)} other values")


def flatten(tree, prefix=""):
    """{"outer/inner": leaf} of nested dicts and lists, with unprintable names escaped."""
    if isinstance(tree, (list, tuple)):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for name, value in tree.items():
        text = str(name) if str(name).isprintable() else ascii(name)
        flat |= flatten(value, f"{prefix}/{text}" if prefix else text)
    return flat


if __name__ == "__main__":
    sys.exit(main())
