"""Command line of the catalog: list models, classify photos, export.

    python -m vmamba_jax models ['vmamba*'] [--markdown]
    python -m vmamba_jax predict photo.jpg --model vmamba_tiny --weights vssm1_tiny_0230s_ckpt_epoch_264.pth
    python -m vmamba_jax predict photos/ more/*.png --weights runs/own --json
    python -m vmamba_jax export --model vmamba_tiny --weights vssm1_tiny_0230s_ckpt_epoch_264.pth --out vmamba_tiny.zip

`models` prints the catalog; `predict` prints the most probable classes of photos; `export` writes a model with its weights as StableHLO. --weights is
a training run's folder, a folder of `python -m vmamba_jax.checkpoints convert`, or a released file; the folders name their model, a file needs
--model. A failure is one line on stderr and exit status 2. `predict` names every photo that it cannot read; its exit status is then 1, or 2 if it
could read none.
"""
import csv
import json
import os
import pathlib
import sys

import rich.box
import rich.console
import rich.table

import vmamba_jax
from vmamba_jax import checkpoints, models, prediction
from vmamba_jax.checkpoints.export import PLATFORMS
from vmamba_jax.core import command_line

COLUMNS = ("name", "parameters", "multiply-adds", "top-1", "measured by", "weights' tag", "preprocessing", "file", "published at")
UNREADABLE = 1  # exit status of `predict` if it could not read some of the photos
NUMBERS = {models.IMAGENET_MEAN: "ImageNet", (0.5,) * 3: "0.5", (127 / 255,) * 3: "127/255, 128/255", (0.0,) * 3: "0, 1"}  # mean -> display name of mean and std


def main(argv=None):
    """Run one command.

    Returns:
        Exit status: 0, 2 after a failure, or 1 if `predict` could not read some of the photos.
    """
    return command_line.run(parser(), argv)


def parser():
    top = command_line.Parser(prog="python -m vmamba_jax", description="List, run and export the models of the catalog.")
    commands = top.add_subparsers(required=True, metavar="command", parser_class=command_line.Parser)
    listing = commands.add_parser("models", help="print the catalog")
    listing.add_argument("pattern", nargs="?", default="*", help="names to print, such as 'vim*'")
    listing.add_argument("--markdown", action="store_true", help="as a Markdown table")
    listing.add_argument("--download", action="store_true", help="the shell lines that fetch the weights, which nothing here runs")
    listing.set_defaults(run=run_models)

    predict = commands.add_parser("predict", help="print the most probable classes of photos")
    predict.add_argument("photos", nargs="+", help="image files, folders of them, or patterns such as 'photos/**/*.png'")
    predict.add_argument("--top-k", "--top", type=int, default=5, metavar="K", help="number of classes to print (default 5)")
    predict.add_argument("--size", type=int, help="height and width of the images (default: the weights' own)")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per photo, a line each")
    form.add_argument("--csv", action="store_true", help="print one line per photo and class, with a header")
    predict.set_defaults(run=run_predict)

    export = commands.add_parser("export", help="write a model and its weights as StableHLO for several platforms")
    export.add_argument("--out", required=True, help="file to write")
    export.add_argument("--batch-size", type=int, default=1, help="images per call (default 1)")
    export.add_argument("--size", type=int, help="height and width of the images in pixels (default: the released evaluation's)")
    export.add_argument("--platforms", nargs="+", default=PLATFORMS, choices=PLATFORMS, help="platforms to lower for (default: all three)")
    export.add_argument("--gradients", action="store_true", help="also export the gradient with respect to the images")
    export.set_defaults(run=run_export)
    for command in (predict, export):
        command_line.add_model_arguments(command, required=False)
        command_line.add_verbose(command)
        command.add_argument("--weights", required=True, help="a training run's folder, a folder of converted weights, or a released file")
        command.add_argument("--checkpoint", default="best", help="of a run: best, latest or a step (default best)")
    return top


def run_models(args):
    names = vmamba_jax.list_models(args.pattern)
    if not names:
        raise ValueError(f"pattern={args.pattern!r}: expected a name or pattern that a model matches, such as 'vmamba*'")
    if args.download:
        for release in (release for name in names for release in models.entry(name).releases):
            print(release.download)
        return
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
    facts = (name, f"{entry.parameters:,}", "" if entry.flops is None else f"{entry.gflops:.2f} G")
    if not entry.releases:
        yield (*facts, "", "", "none listed", "", "", "")
    for release in entry.releases:
        p = release.preprocessing
        yield (*facts, f"{release.top1:.2f}", release.source, release.tag, f"{p.resize} {p.interpolation}, crop {p.size}, mean/std {NUMBERS[p.mean]}",
               release.file, release.url)
        facts = (name, "", "")


def markdown(rows):
    lines = [COLUMNS, ("---", "---:", "---:", "---:", *("---",) * 5), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def opened_model(args):
    """(`WeightsSource`, its Linen module) of --weights, --checkpoint, --model and --override."""
    weights = args.weights if args.model is None else f"{args.model}@{args.weights}"
    opened = checkpoints.open_weights(weights, checkpoint=args.checkpoint)
    if opened.name is None:
        raise ValueError(f"--model: expected the model of {args.weights}, one of `python -m vmamba_jax models`; "
                         "`python -m vmamba_jax.checkpoints inspect` guesses it")
    return opened, opened.create_model(**dict(args.override))


def run_predict(args):
    if args.top_k < 1:
        raise ValueError(f"--top-k={args.top_k}: expected at least 1")
    paths, bad = prediction.image_files(args.photos)
    if len(paths) == 1 and not bad and not os.path.isfile(paths[0]):
        prediction.decode(None, paths[0])  # raises before the model is built
    opened, model = opened_model(args)
    decoder = prediction.decoder(opened, model, args.size)
    logits_fn = vmamba_jax.logits_fn(prediction.classifier(opened, model), opened.variables(model, log=_say))
    names, writer, read = opened.class_names(model.num_classes), csv.writer(sys.stdout, lineterminator="\n"), 0
    if args.csv:
        writer.writerow(("photo", "rank", "label", "name", "probability"))
    for path, row, error in prediction.probabilities(paths, decoder, logits_fn):
        if error is not None:
            bad.append(error)
            if args.json:
                print(json.dumps({"photo": path, "error": error}))
            continue
        read, classes = read + 1, prediction.ranked(row, names, args.top_k)
        if args.json:
            print(json.dumps({"photo": path, "classes": classes}))
        elif args.csv:
            writer.writerows((path, rank, found["label"], found["name"] or "", found["probability"]) for rank, found in enumerate(classes, 1))
        else:
            print("\n".join([path, *(f"  {100 * found['probability']:5.1f} %  {_class_name(found)}" for found in classes)]))
    for line in bad:
        _say(f"error: {line}")
    return 0 if not bad else UNREADABLE if read else 2


def _say(line):
    print(line, file=sys.stderr)


def _class_name(found):
    """"tench, Tinca tinca (n01440764, class 0)", "cherry (class 2)", or "class 2"."""
    known = ", ".join([*([found["identifier"]] if "identifier" in found else []), f"class {found['label']}"])
    return known if found["name"] is None else f"{found['name']} ({known})"


def run_export(args):
    opened, model = opened_model(args)
    size = args.size or opened.preprocessing.get("size")
    if size is None:
        raise ValueError(f"--size: expected the height and width of the images, which {opened.path} does not record")
    names = opened.class_names(model.num_classes)
    checkpoints.export_model(
        args.out, prediction.classifier(opened, model), opened.variables(model, log=_say), (size, size, getattr(model, "in_channels", 3)),
        batch_size=args.batch_size, platforms=args.platforms, gradients=args.gradients,
        metadata={"model": opened.name, "overrides": opened.overrides | dict(args.override), "weights": pathlib.Path(args.weights).name,
                  **({} if names is None else {"class_names": [name if isinstance(name, str) else name[1] for name in names]})})
    print(f"{args.out}: {opened.name} for {', '.join(args.platforms)}, {args.batch_size} x {size} x {size}, {pathlib.Path(args.out).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
