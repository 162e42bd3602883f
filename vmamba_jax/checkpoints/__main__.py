"""Inspects and converts foreign weights from the command line.

    python -m vmamba_jax.checkpoints inspect weights.pth
    python -m vmamba_jax.checkpoints convert weights.pth --model vmamba_tiny --out DIR [--override num_classes=10 ...] [--weights ema|raw] [--overwrite]

`inspect` lists the arrays of a .pth, .pt or .safetensors file (or of a model in several files, by its .index.json) and what wraps the weights:
format, sets of weights, prefixes; then the model and the number of classes that they fit, with the command that converts them; `convert` writes them as Flax variables that `checkpoints.load_variables`
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

from vmamba_jax.checkpoints import recognition, wrappers
from vmamba_jax.checkpoints.convert import find
from vmamba_jax.checkpoints.source import open_weights
from vmamba_jax.checkpoints.store import save_variables
from vmamba_jax.checkpoints.torch_files.read import read_torch
from vmamba_jax.core import command_line, files
from vmamba_jax.models import catalog
from vmamba_jax.version import __version__

MOST_ROWS = 10_000  # arrays that `inspect` lists
LONGEST = 300  # characters of a name in the list
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
        command.add_argument("file", help=".pth, .pt, .safetensors or .index.json file")
    command_line.add_model_arguments(converting)
    command_line.add_verbose(converting)
    converting.add_argument("--weights", help="which set of weights: ema, raw, or its name; default: the averaged weights if there are any")
    converting.add_argument("--out", required=True, help="folder to write")
    converting.add_argument("--overwrite", action="store_true", help="replace an earlier result in the folder")
    inspect.set_defaults(run=run_inspect)
    converting.set_defaults(run=run_convert)
    return top


def run_convert(args):
    overrides = dict(args.override)
    model = catalog.create_model(args.model, **overrides)
    source = open_weights(args.file, weights=args.weights)
    if source.kind != "file":
        raise ValueError(f"{args.file}: expected a .pth, .pt, .safetensors or .index.json file, got the folder of a {source.kind}")
    variables, found = source.variables(model), find(model, source.content, args.weights)
    mean, std = preprocessing(args.model, model)
    if found.mean and found.std:  # the file's own normalizer
        mean, std = list(found.mean), list(found.std)
    leaves = jax.tree.leaves(variables["params"])
    metadata = {
        "model": args.model, "overrides": overrides, "source": os.path.basename(args.file), "source_sha256": files.sha256(args.file),
        "found": list(found.told), "parameters": sum(x.size for x in leaves),
        "preprocessing": {"range": [0.0, 1.0], "mean": mean, "std": std},
        "versions": {"vmamba_jax": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}}
    save_variables(args.out, variables, metadata, overwrite=args.overwrite)
    print(f"{args.out}: {args.model}, {metadata['parameters']:,} parameters in {len(leaves)} arrays, from {metadata['source']}"
          + (f" ({'; '.join(found.told)})" if found.told else ""))


def preprocessing(name, model):
    """The catalog's mean and std of model `name`, as lists; None if overrides changed the number of channels."""
    entry = catalog.entry(name)
    fits = getattr(model, "in_channels", len(entry.mean)) == len(entry.mean)
    return (list(entry.mean), list(entry.std)) if fits else (None, None)


def run_inspect(args):
    content = read_torch(args.file)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("name", overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("type", no_wrap=True)
    arrays = elements = size = others = 0
    for name, x in leaves_of(content):
        if not isinstance(x, np.ndarray):
            others += 1
            continue
        arrays, elements, size = arrays + 1, elements + x.size, size + x.nbytes
        if arrays <= MOST_ROWS:
            table.add_row(rich.text.Text(name), rich.text.Text(str(x.shape)), x.dtype.name)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    for line in wrappers.recognized(content):
        print(printable(line))
    lines, names, classes = recognition.recognize(content)
    for line in lines + ([f"convert: {recognition.command(args.file, names, classes)}"] if names else []):
        print(printable(line))
    print(f"{arrays} arrays, {elements:,} elements, {size / 1e6:,.3f} MB; {others} other values" + f"; the first {MOST_ROWS} are listed" * (arrays > MOST_ROWS))


def leaves_of(tree, prefix="", seen=None):
    """(outer/inner, leaf) of nested dicts and lists, each container once, with long names cut and unprintable ones escaped."""
    seen = set() if seen is None else seen
    if not isinstance(tree, (list, tuple, dict)):
        yield prefix, tree
    elif id(tree) not in seen:
        seen.add(id(tree))
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            text = printable(str(name)[:LONGEST])
            yield from leaves_of(value, f"{prefix}/{text}"[:LONGEST] if prefix else text, seen)


def printable(text):
    return text if text.isprintable() else ascii(text)


if __name__ == "__main__":
    sys.exit(main())
