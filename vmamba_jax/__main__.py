"""Command line of the catalog: list models, classify photos, export.

    python -m vmamba_jax models ['vmamba*'] [--markdown]
    python -m vmamba_jax predict photo.jpg --model vmamba_tiny --weights vssm1_tiny_0230s_ckpt_epoch_264.pth
    python -m vmamba_jax export --model vmamba_tiny --weights vssm1_tiny_0230s_ckpt_epoch_264.pth --out vmamba_tiny.zip

`models` prints the catalog; `predict` prints the most probable classes of photos; `export` writes a model with its weights as StableHLO. --weights is
a released file or a folder of `python -m vmamba_jax.checkpoints convert`. A failure is one line on stderr and exit status 2.
"""
import pathlib
import sys

import jax
import numpy as np
import rich.box
import rich.console
import rich.table

import vmamba_jax
from vmamba_jax import checkpoints, models
from vmamba_jax.checkpoints.export import PLATFORMS
from vmamba_jax.core import command_line
from vmamba_jax.core.images import unit_interval
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.data.decoding.images import BadImageError, Decoder

COLUMNS = ("name", "parameters", "multiply-adds", "top-1", "measured by", "weights' tag", "preprocessing", "file", "published at")
NUMBERS = {models.IMAGENET_MEAN: "ImageNet", (0.5,) * 3: "0.5", (127 / 255,) * 3: "127/255, 128/255"}  # mean -> display name of mean and std


def main(argv=None):
    """Run one command.

    Returns:
        Exit status: 0, or 2 after a failure.
    """
    return command_line.run(parser(), argv)


def parser():
    top = command_line.Parser(prog="python -m vmamba_jax", description="List, run and export the models of the catalog.")
    commands = top.add_subparsers(required=True, metavar="command", parser_class=command_line.Parser)
    listing = commands.add_parser("models", help="print the catalog")
    listing.add_argument("pattern", nargs="?", default="*", help="names to print, such as 'vim*'")
    listing.add_argument("--markdown", action="store_true", help="as a Markdown table")
    listing.set_defaults(run=run_models)

    predict = commands.add_parser("predict", help="print the most probable classes of photos")
    predict.add_argument("photos", nargs="+", help="image files")
    predict.add_argument("--top", type=int, default=5, help="number of classes to print (default 5)")
    predict.set_defaults(run=run_predict)

    export = commands.add_parser("export", help="write a model and its weights as StableHLO for several platforms")
    export.add_argument("--out", required=True, help="file to write")
    export.add_argument("--batch-size", type=int, default=1, help="images per call (default 1)")
    export.add_argument("--size", type=int, help="height and width of the images in pixels (default: the released evaluation's)")
    export.add_argument("--platforms", nargs="+", default=PLATFORMS, choices=PLATFORMS, help="platforms to lower for (default: all three)")
    export.add_argument("--gradients", action="store_true", help="also export the gradient with respect to the images")
    export.set_defaults(run=run_export)
    for command in (predict, export):
        command_line.add_model_arguments(command)
        command.add_argument("--weights", required=True, help="a released file or a folder of converted weights")
    return top


def run_models(args):
    names = vmamba_jax.list_models(args.pattern)
    if not names:
        raise ValueError(f"pattern={args.pattern!r}: expected a name or pattern that a model matches, such as 'vmamba*'")
    rows = [row for name in names for row in catalog_rows(name)]
    if args.markdown:
        print(markdown(rows))
        return
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "parameters"))
    for row in rows:
        table.add_row(*row)
    rich.console.Console(width=None if sys.stdout.isatty() else 400).print(table)


def catalog_rows(name):
    """A model's rows of the catalog: one per release of its weights, or one row if none was released."""
    entry = models.entry(name)
    facts = (name, f"{entry.parameters:,}", f"{entry.gflops:.2f} G" if entry.gflops else "")
    if not entry.releases:
        yield (*facts, "", "", "never released", "", "", "")
    for release in entry.releases:
        p = release.preprocessing
        yield (*facts, f"{release.top1:.2f}", release.source, release.tag, f"{p.resize} {p.interpolation}, crop {p.size}, mean/std {NUMBERS[p.mean]}",
               release.file, release.url)
        facts = (name, "", "")


def markdown(rows):
    lines = [COLUMNS, ("---", "---:", "---:", "---:", *("---",) * 5), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_predict(args):
    if args.top < 1:
        raise ValueError(f"--top={args.top}: expected at least 1")
    preprocessing = models.entry(args.model).preprocessing
    decode = Decoder(preprocessing.size, preprocessing.resize, preprocessing.interpolation)
    images = [_photo(decode, photo) for photo in args.photos]  # fail on a bad photo before the model is built
    model = vmamba_jax.create_model(args.model, **dict(args.override))
    classifier = models.as_classifier(model, preprocessing.mean, preprocessing.std)
    logits = vmamba_jax.logits_fn(classifier, checkpoints.read_variables(model, args.weights))(unit_interval(np.stack(images)))
    for photo, row in zip(args.photos, np.asarray(jax.nn.softmax(logits)), strict=True):
        print(photo)
        for label in np.argsort(-row)[:args.top]:
            print(f"  {100 * row[label]:5.1f} %  {_class_name(label, len(row))}")


def _photo(decode, photo):
    """A photo's pixels; a ValueError that says what was given for anything but an image file."""
    path = pathlib.Path(photo)
    if not path.is_file():
        given = "a folder; give the image files in it" if path.is_dir() else "no file of that name" if not path.exists() else "no regular file"
        raise ValueError(f"photo={photo}: expected an image file, got {given}")
    content = path.read_bytes()
    try:
        return decode(content, photo)
    except BadImageError as error:
        given = f"a file that begins with {content[:16]!r}" if content else "an empty file"
        raise ValueError(f"photo={photo}: expected an image file that Pillow reads, such as JPEG or PNG, got {given}") from error


def _class_name(label, classes):
    if classes != len(imagenet.classes()):
        return f"class {label}"
    wordnet, names = imagenet.classes()[label]
    return f"{names} ({wordnet}, class {label})"


def run_export(args):
    entry, overrides = models.entry(args.model), dict(args.override)
    model = vmamba_jax.create_model(args.model, **overrides)
    size = args.size or entry.image_size
    checkpoints.export_model(
        args.out, models.as_classifier(model, entry.mean, entry.std), checkpoints.read_variables(model, args.weights),
        (size, size, getattr(model, "in_channels", 3)), batch_size=args.batch_size, platforms=args.platforms, gradients=args.gradients,
        metadata={"model": args.model, "overrides": overrides, "weights": pathlib.Path(args.weights).name})
    print(f"{args.out}: {args.model} for {', '.join(args.platforms)}, {args.batch_size} x {size} x {size}, {pathlib.Path(args.out).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
