"""`models`, the catalog and model cards printed, and `info`, what a report of a fault should say about an installation."""
import fnmatch
import importlib.metadata
import platform
import sys
from typing import Annotated

import rich.box
import rich.console
import rich.table
from cyclopts import Parameter

import vmamba_jax
from vmamba_jax.core import command_line

COLUMNS = ("name", "parameters", "multiply-adds", "top-1", "measured by", "weights' tag", "preprocessing", "file", "published at")
SHORT = ("name", "parameters", "multiply-adds", "top-1", "weights' tag")  # those of a list of several models
WIDTH = 80        # of a list that does not go to a terminal
PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "orbax-checkpoint", "grain", "ml-collections", "numpy")


def models(pattern: Annotated[str, Parameter(help="A name, or a pattern such as 'vim*'.")] = "*", /, *,
           markdown: command_line.Flag = False, download: command_line.Flag = False):
    """Print the catalog: a line for each release of a model's weights, all that is known of one model, or the card of weights that come with the package.

    Args:
        markdown: All columns, as a Markdown table.
        download: The shell lines that fetch the weights, which nothing here runs.
    """
    from vmamba_jax.checkpoints import examples
    from vmamba_jax.commands import cards
    from vmamba_jax.models import catalog
    names = vmamba_jax.list_models(pattern)
    shipped = fnmatch.filter(examples.names(), pattern)
    if shipped and not (names or markdown or download):
        print("\n\n".join(map(cards.text, shipped)))
        return
    if not names:
        raise ValueError(f"pattern={pattern!r}: expected a name or pattern that a model matches, such as 'vmamba*'")
    if download:
        for release in (release for name in names for release in catalog.entry(name).releases):
            print(release.download)
        return
    rows = [row for name in names for row in catalog_rows(name)]
    if markdown:
        print(as_markdown(rows))
    elif len(names) == 1:
        for row in rows:
            print("\n".join(f"{column:<14} {value}" for column, value in zip(COLUMNS, row, strict=True) if value))
    else:
        _print_list(rows)
        if pattern == "*":
            print(cards.listed())


def _print_list(rows):
    """The columns of `SHORT`, a name folded rather than cut."""
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    chosen = [COLUMNS.index(column) for column in SHORT]
    for column in SHORT:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "parameters", "multiply-adds", "top-1"),
                         justify="right" if column in ("parameters", "multiply-adds", "top-1") else "left")
    for row in rows:
        table.add_row(*(row[i] for i in chosen))
    rich.console.Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(table)


def catalog_rows(name):
    """A model's rows of the catalog: one per release of its weights, or one row if none was released."""
    from vmamba_jax.models import IMAGENET_MEAN, catalog
    numbers = {IMAGENET_MEAN: "ImageNet", (0.5,) * 3: "0.5", (127 / 255,) * 3: "127/255, 128/255", (0.0,) * 3: "0, 1"}  # mean: display name of mean and std
    entry = catalog.entry(name)
    facts = (name, f"{entry.parameters:,}", "" if entry.flops is None else f"{entry.gflops:.2f} G")
    if not entry.releases:
        yield (*facts, "", "", "none listed", "", "", "")
    for release in entry.releases:
        p = release.preprocessing
        measured = release.source + (f"; weights {release.license}" if release.license else "")
        yield (*facts, f"{release.top1:.2f}", measured, release.tag, f"{p.resize} {p.interpolation}, crop {p.size}, mean/std {numbers[p.mean]}",
               release.file, release.url)
        facts = (name, "", "")


def as_markdown(rows):
    """Rows of `catalog_rows` as a Markdown table of all columns."""
    lines = [COLUMNS, ("---", "---:", "---:", "---:", *("---",) * 5), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def info():
    """Print versions, devices and the scan's backends of this installation, for a report of a fault."""
    import jax

    from pallas_kernels.backends import PLATFORMS
    lines = [("vmamba_jax", vmamba_jax.__version__), ("python", f"{platform.python_version()}, {platform.platform()}")]
    for name in PACKAGES:
        try:
            lines.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    first, count = jax.devices()[0], jax.device_count()
    platform_name = {"gpu": "cuda"}.get(first.platform, first.platform)
    lines += [("devices", f"{count} x {first.device_kind} ({first.platform})"), ("scan", PLATFORMS.get(platform_name, "xla"))]
    print("\n".join(f"{name:<18} {value}" for name, value in lines))
