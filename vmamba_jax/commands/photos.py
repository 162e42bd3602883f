"""`predict`: the most probable classes of photos."""
import csv
import json
import os
import sys
from typing import Annotated

from cyclopts import Parameter

from vmamba_jax.core import command_line
from vmamba_jax.core.command_line import Flag, ModelName, Override, Verbose

UNREADABLE = 1  # exit status if some of the photos could not be read


def predict(photos: Annotated[list[str], Parameter(negative=())], /, *, weights: str, model: ModelName = None, override: Override = (),
            checkpoint: str = "best", top_k: Annotated[int, Parameter(name=("--top-k", "--top"))] = 5, size: int | None = None,
            json: Flag = False, csv: Flag = False, verbose: Verbose = False):
    """Print the most probable classes of photos.

    It names every photo that it cannot read; the exit status is then 1, or 2 if it could read none.

    Args:
        photos: Image files, folders of them, or patterns such as 'photos/**/*.png'.
        weights: A training run's folder, a folder of converted weights, or a released file, which needs --model.
        checkpoint: Of a run: best, latest or a step.
        top_k: Number of classes to print.
        size: Height and width of the images in pixels; default: the weights' own.
        json: Print one JSON object per photo, a line each.
        csv: Print one line per photo and class, with a header.
    """
    del verbose
    if json and csv:
        raise ValueError("--json and --csv: expected one of them")
    if top_k < 1:
        raise ValueError(f"--top-k={top_k}: expected at least 1")
    return _predict(photos, "json" if json else "csv" if csv else "text", top_k, size, weights, model, checkpoint, command_line.overrides(override))


def _predict(photos, form, top_k, size, weights, model, checkpoint, overrides):
    import vmamba_jax
    from vmamba_jax import prediction
    paths, bad = prediction.image_files(photos)
    if len(paths) == 1 and not bad and not os.path.isfile(paths[0]):
        prediction.decode(None, paths[0])  # raises before the model is built
    opened, module = opened_model(weights, model, checkpoint, overrides)
    decoder = prediction.decoder(opened, module, size)
    logits_fn = vmamba_jax.logits_fn(prediction.classifier(opened, module), opened.variables(module, log=say))
    names, writer, read = opened.class_names(module.num_classes), csv.writer(sys.stdout, lineterminator="\n"), 0
    if form == "csv":
        writer.writerow(("photo", "rank", "label", "name", "probability"))
    for path, row, error in prediction.probabilities(paths, decoder, logits_fn):
        if error is not None:
            bad.append(error)
            if form == "json":
                print(json.dumps({"photo": path, "error": error}))
            continue
        read, classes = read + 1, prediction.ranked(row, names, top_k)
        if form == "json":
            print(json.dumps({"photo": path, "classes": classes}))
        elif form == "csv":
            writer.writerows((path, rank, found["label"], found["name"] or "", found["probability"]) for rank, found in enumerate(classes, 1))
        else:
            print("\n".join([path, *(f"  {100 * found['probability']:5.1f} %  {_class_name(found)}" for found in classes)]))
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
