"""`predict`: the most probable classes of photos, or their objects and label maps drawn over them."""
import csv
import json
import os
import sys
from typing import Annotated

from cyclopts import Parameter

from vmamba_jax.core import command_line
from vmamba_jax.core.command_line import Flag, ModelName, Override, Verbose

UNREADABLE = 1  # exit status if some of the photos could not be read
CLASSES = 5     # of a photo, printed unless --top-k says otherwise
BOX = ("x1", "y1", "x2", "y2")


def predict(photos: Annotated[list[str], Parameter(negative=())], /, *, weights: str, model: ModelName = None, override: Override = (),
            checkpoint: str = "best", top_k: Annotated[int | None, Parameter(name=("--top-k", "--top"))] = None, size: int | None = None,
            out: str | None = None, score: float | None = None, scales: str | None = None, flip: Flag = False, json: Flag = False, csv: Flag = False, verbose: Verbose = False):
    """Print the most probable classes of photos; draw objects and label maps over them.

    With a detector it prints the objects of each photo, with a segmenter the classes of its pixels, and writes the photo with these drawn over it.
    It names every photo that it cannot read; the exit status is then 1, or 2 if it could read none.

    Args:
        photos: Image files, folders of them, or patterns such as 'photos/**/*.png'.
        weights: A training run's folder, a folder of converted weights, or a released file, which needs --model.
        checkpoint: Of a run: best, latest or a step.
        top_k: Classes or objects to print of a photo; default: 5, of a detector or segmenter all.
        size: Height and width of the images in pixels, of a detector or segmenter their short side; default: the weights' own.
        out: Folder for the pictures of a detector or segmenter; default: predictions.
        score: Least score of a detector's objects; default: 0.3.
        scales: Factors of the image's sides joined by commas, such as 0.75,1,1.25: the predictions of a detector or segmenter at all are merged; default: 1.
        flip: Also predict each of them mirrored left to right.
        json: Print one JSON object per photo, a line each.
        csv: Print one line per photo and class, with a header.
    """
    del verbose
    if json and csv:
        raise ValueError("--json and --csv: expected one of them")
    if top_k is not None and top_k < 1:
        raise ValueError(f"--top-k={top_k}: expected at least 1")
    from vmamba_jax import dense_prediction, prediction
    paths, bad = prediction.image_files(photos)
    if len(paths) == 1 and not bad and not os.path.isfile(paths[0]):
        prediction.decode(None, paths[0])  # raises before the model is built
    opened, module = opened_model(weights, model, checkpoint, command_line.overrides(override))
    form = "json" if json else "csv" if csv else "text"
    if dense_prediction.is_dense(module):
        return _draw(opened, module, paths, bad, form, top_k, size, out, score, (1.0,) if scales is None else _factors(scales), flip)
    for name, value in (("out", out), ("score", score), ("scales", scales), ("flip", flip or None)):
        if value is not None:
            raise ValueError(f"--{name}={value}: expected none, as {opened.name} is no detector or segmenter")
    return _classify(opened, module, paths, bad, form, top_k or CLASSES, size)


def _classify(opened, module, paths, bad, form, top_k, size):
    """`predict` with a classifier."""
    from vmamba_jax import models, prediction
    decoder = prediction.decoder(opened, module, size)
    logits_fn = models.logits_fn(prediction.classifier(opened, module), opened.variables(module, log=say))
    names, writer, read = opened.class_names(module.num_classes), csv.writer(sys.stdout, lineterminator="\n"), 0
    if form == "csv":
        writer.writerow(("photo", "rank", "label", "name", "probability"))
    for path, row, error in prediction.probabilities(paths, decoder, logits_fn):
        if error is not None:
            _unreadable(path, error, bad, form)
            continue
        read, classes = read + 1, prediction.ranked(row, names, top_k)
        if form == "json":
            print(json.dumps({"photo": path, "classes": classes}))
        elif form == "csv":
            writer.writerows((path, rank, found["label"], found["name"] or "", found["probability"]) for rank, found in enumerate(classes, 1))
        else:
            print("\n".join([path, *(f"  {100 * found['probability']:5.1f} %  {_class_name(found)}" for found in classes)]))
    return _status(bad, read)


def _draw(opened, module, paths, bad, form, top_k, size, out, score, scales, flip):
    """`predict` with a detector or a segmenter."""
    from vmamba_jax import dense_prediction, prediction
    short, writer, read = size or opened.preprocessing.get("size"), csv.writer(sys.stdout, lineterminator="\n"), 0
    if short is None:
        raise ValueError(f"--size: expected the short side of the images, which {opened.path} does not record")
    detects = dense_prediction.detects(module)
    if score is not None and not detects:
        raise ValueError(f"--score={score}: expected none, as {opened.name} is no detector")
    predictor = dense_prediction.Predictor(
        prediction.classifier(opened, module), opened.variables(module, log=say), opened.class_names(module.num_classes), short,
        dense_prediction.SCORE if score is None else score, scales, flip)
    value = "score" if detects else "share"
    if form == "csv":
        writer.writerow(("photo", "rank", "label", "name", value, *(BOX if detects else ())))
    for path, picture, rows, error in dense_prediction.predictions(paths, predictor, out or "predictions"):
        if error is not None:
            _unreadable(path, error, bad, form)
            continue
        read, rows = read + 1, rows[:top_k]
        if form == "json":
            print(json.dumps({"photo": path, "picture": str(picture), "objects" if detects else "classes": rows}))
        elif form == "csv":
            writer.writerows((path, rank, row["label"], row["name"], row[value], *row.get("box", ())) for rank, row in enumerate(rows, 1))
        else:
            print("\n".join([f"{path} -> {picture}", *(f"  {100 * row[value]:5.1f} %  {row['name']}{_at(row)}" for row in rows)]))
    return _status(bad, read)


def _factors(text):
    """Numbers joined by commas."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise ValueError(f"--scales={text}: expected numbers joined by commas, such as 0.75,1,1.25") from error


def _unreadable(path, error, bad, form):
    """Note a photo that could not be read."""
    bad.append(error)
    if form == "json":
        print(json.dumps({"photo": path, "error": error}))


def _status(bad, read):
    """Exit status, after one line for each photo that could not be read."""
    for line in bad:
        say(f"error: {line}")
    return 0 if not bad else UNREADABLE if read else 2


def opened_model(weights, model, checkpoint, overrides):
    """(`WeightsSource`, its Linen module) of the arguments --weights, --model, --checkpoint and --override."""
    from vmamba_jax import checkpoints
    opened = checkpoints.open_weights(weights if model is None else f"{model}@{weights}", checkpoint=checkpoint)
    if opened.name is None:
        raise ValueError(f"--model: expected the model of {weights}, one of `vmamba-jax models`; `vmamba-jax inspect` guesses it")
    return opened, opened.create_model(**overrides)


def say(line):
    """Print a line on stderr."""
    print(line, file=sys.stderr)


def _class_name(found):
    """"tench, Tinca tinca (n01440764, class 0)", "cherry (class 2)", or "class 2"."""
    known = ", ".join([*([found["identifier"]] if "identifier" in found else []), f"class {found['label']}"])
    return known if found["name"] is None else f"{found['name']} ({known})"


def _at(row):
    """" at x1 y1 x2 y2" of an object."""
    return "".join([" at", *(f" {x:.0f}" for x in row["box"])]) if "box" in row else ""
