"""`inspect` and `convert` for foreign weights, `export` for StableHLO."""
import importlib.metadata
import os
import pathlib
import sys
from typing import Annotated, Literal

import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text
from cyclopts import Parameter

from vmamba_jax.commands import photos
from vmamba_jax.core import command_line, files
from vmamba_jax.core.command_line import Flag, ModelName, Override, Verbose
from vmamba_jax.version import __version__

MOST_ROWS = 10_000  # arrays that `inspect` lists
LONGEST = 300  # characters of a name in the list
PACKAGES = ("jax", "flax", "orbax-checkpoint", "numpy")  # their versions go into the metadata
PLATFORMS = ("cpu", "tpu", "cuda")


def inspect(file: str, /, *, verbose: Verbose = False):
    """List the names, shapes and types in a file of weights, and the model that they fit.

    What wraps the weights comes after the arrays: format, sets of weights, prefixes; then the command that converts them.

    Args:
        file: A .pth, .pt, .safetensors or .index.json file.
    """
    del verbose
    from vmamba_jax.checkpoints import recognition, wrappers
    from vmamba_jax.checkpoints.torch_files.read import read_torch
    content = read_torch(file)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("name", overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("type", no_wrap=True)
    arrays = elements = size = others = 0
    for name, x in _leaves(content):
        if not isinstance(x, np.ndarray):
            others += 1
            continue
        arrays, elements, size = arrays + 1, elements + x.size, size + x.nbytes
        if arrays <= MOST_ROWS:
            table.add_row(rich.text.Text(name), rich.text.Text(str(x.shape)), x.dtype.name)
    rich.console.Console(width=None if sys.stdout.isatty() else 200).print(table)
    for line in wrappers.recognized(content):
        print(_printable(line))
    lines, names, classes = recognition.recognize(content)
    for line in lines + ([f"convert: {recognition.command(file, names, classes)}"] if names else []):
        print(_printable(line))
    print(f"{arrays} arrays, {elements:,} elements, {size / 1e6:,.3f} MB; {others} other values" + f"; the first {MOST_ROWS} are listed" * (arrays > MOST_ROWS))


def convert(file: str, /, *, model: str, out: str, override: Override = (), weights: str | None = None, overwrite: Flag = False, verbose: Verbose = False):
    """Convert a file of foreign weights to the variables of one of this package's models.

    Args:
        file: A .pth, .pt, .safetensors or .index.json file.
        model: A name of the catalog (`vmamba-jax models`).
        out: Folder to write, which `checkpoints.load_variables` and --weights of every command read.
        weights: Which set of weights: ema, raw, or its name; default: the averaged weights if there are any.
        overwrite: Replace an earlier result in the folder.
    """
    del verbose
    import jax

    from vmamba_jax.checkpoints.convert import find
    from vmamba_jax.checkpoints.source import open_weights
    from vmamba_jax.checkpoints.store import save_variables
    from vmamba_jax.models import catalog
    fields = command_line.overrides(override)
    module = catalog.create_model(model, **fields)
    source = open_weights(file, weights=weights)
    if source.kind != "file":
        raise ValueError(f"{file}: expected a .pth, .pt, .safetensors or .index.json file, got the folder of a {source.kind}")
    variables, found = source.variables(module), find(module, source.content, weights)
    mean, std = _preprocessing(model, module)
    if found.mean and found.std:  # the file's own normalizer
        mean, std = list(found.mean), list(found.std)
    leaves = jax.tree.leaves(variables["params"])
    metadata = {
        "model": model, "overrides": fields, "source": os.path.basename(file), "source_sha256": files.sha256(file),
        "found": list(found.told), "parameters": sum(x.size for x in leaves),
        "preprocessing": {"range": [0.0, 1.0], "mean": mean, "std": std},
        "versions": {"vmamba_jax": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}}
    save_variables(out, variables, metadata, overwrite=overwrite)
    print(f"{out}: {model}, {metadata['parameters']:,} parameters in {len(leaves)} arrays, from {metadata['source']}"
          + (f" ({'; '.join(found.told)})" if found.told else ""))


def export(*, weights: str, out: str, model: ModelName = None, override: Override = (), checkpoint: str = "best", batch_size: int = 1, size: int | None = None,
           platforms: Annotated[list[Literal["cpu", "tpu", "cuda"]], Parameter(negative=(), consume_multiple=True)] = PLATFORMS,
           gradients: Flag = False, verbose: Verbose = False):
    """Write a model and its weights as StableHLO for several platforms.

    Args:
        weights: A training run's folder, a folder of converted weights, or a released file, which needs --model.
        out: File to write.
        checkpoint: Of a run: best, latest or a step.
        batch_size: Images per call.
        size: Height and width of the images in pixels; default: the released evaluation's.
        platforms: Platforms to lower for.
        gradients: Also export the gradient with respect to the images.
    """
    del verbose
    from vmamba_jax import checkpoints, prediction
    fields = command_line.overrides(override)
    opened, module = photos.opened_model(weights, model, checkpoint, fields)
    size = size or opened.preprocessing.get("size")
    if size is None:
        raise ValueError(f"--size: expected the height and width of the images, which {opened.path} does not record")
    names = opened.class_names(module.num_classes)
    checkpoints.export_model(
        out, prediction.classifier(opened, module), opened.variables(module, log=photos.say), (size, size, getattr(module, "in_channels", 3)),
        batch_size=batch_size, platforms=platforms, gradients=gradients,
        metadata={"model": opened.name, "overrides": opened.overrides | fields, "weights": pathlib.Path(weights).name,
                  **({} if names is None else {"class_names": [name if isinstance(name, str) else name[1] for name in names]})})
    print(f"{out}: {opened.name} for {', '.join(platforms)}, {batch_size} x {size} x {size}, {pathlib.Path(out).stat().st_size / 1e6:.1f} MB")


def _preprocessing(name, module):
    """The catalog's mean and std of model `name`, as lists; None if overrides changed the number of channels."""
    from vmamba_jax.models import catalog
    entry = catalog.entry(name)
    fits = getattr(module, "in_channels", len(entry.mean)) == len(entry.mean)
    return (list(entry.mean), list(entry.std)) if fits else (None, None)


def _leaves(tree, prefix="", seen=None):
    """(outer/inner, leaf) of nested dicts and lists, each container once, with long names cut and unprintable ones escaped."""
    seen = set() if seen is None else seen
    if not isinstance(tree, (list, tuple, dict)):
        yield prefix, tree
    elif id(tree) not in seen:
        seen.add(id(tree))
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            text = _printable(str(name)[:LONGEST])
            yield from _leaves(value, f"{prefix}/{text}"[:LONGEST] if prefix else text, seen)


def _printable(text):
    return text if text.isprintable() else ascii(text)
