"""The most probable classes of image files: files, folders and globs read one batch at a time, by weights of any place."""
import glob
import os
import pathlib

import jax
import numpy as np

from vmamba_jax import models
from vmamba_jax.core.images import unit_interval
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.data.datasets.folder import EXTENSIONS
from vmamba_jax.data.decoding.archives import visible_files
from vmamba_jax.data.decoding.images import BadImageError, Decoder, read_file

BATCH = 32  # images per call of the model, at most


def image_files(arguments):
    """([path of an image file, ...] without repetitions, [one line per argument that names none]).

    Args:
        arguments: files; folders, of which all image files at any depth are taken, sorted by name; or glob patterns such as "photos/**/*.png".
    """
    found, bad = {}, []
    for argument in map(str, arguments):
        if os.path.isdir(argument):
            inside = [os.path.join(argument, name) for name in visible_files(pathlib.Path(argument)) if name.lower().endswith(EXTENSIONS)]
            reason = f"got a folder without files that end in {', '.join(EXTENSIONS)}"
        elif glob.has_magic(argument) and not os.path.exists(argument):
            inside, reason = sorted(path for path in glob.glob(argument, recursive=True) if os.path.isfile(path)), "got a pattern that matches no file"
        else:
            inside, reason = [argument], ""
        found |= dict.fromkeys(inside)
        bad += [] if inside else [f"photo={argument}: expected image files, {reason}"]
    return list(found), bad


def decoder(opened, model, size=None):
    """The `Decoder` of photos for a model.

    Args:
        opened: `checkpoints.WeightsSource`.
        model: the Linen module.
        size: height and width, which replace the weights' own together with their resize; None: the weights' own.

    Raises:
        ValueError: a size that is not known, or a model of other than 1 or 3 channels.
    """
    view = opened.preprocessing if size is None else {}
    size = view.get("size") if size is None else size
    if size is None:
        raise ValueError(f"--size: expected the height and width of the images, which {opened.path} does not record")
    interpolation = opened.preprocessing.get("interpolation", "bicubic")
    return Decoder(size, view.get("resize"), interpolation, getattr(model, "in_channels", 3), exif=view.get("exif", True))


def decode(decoder, path):
    """A photo's uint8 pixels; a ValueError that says what is at the path if it is no image."""
    if not os.path.isfile(path):
        raise ValueError(f"photo={path}: expected an image file, got {'no regular file' if os.path.lexists(path) else 'no file of that name'}")
    content = b""
    try:
        content = read_file(path)
        return decoder(content, path)
    except BadImageError as error:
        given = f"a file that begins with {content[:16]!r}" if content else "an empty or unreadable file"
        raise ValueError(f"photo={path}: expected an image file that Pillow reads, such as JPEG or PNG, got {given}") from error


def probabilities(paths, decoder, logits_fn):
    """Yields (path, float32 probabilities of the classes, None), or (path, None, one line) for a photo that cannot be read, in order."""
    width = min(BATCH, len(paths))
    for start in range(0, len(paths), BATCH):
        images, bad = {}, {}
        for path in paths[start:start + BATCH]:
            try:
                images[path] = decode(decoder, path)
            except ValueError as error:
                bad[path] = str(error)
        found = {}
        if images:
            stacked = np.stack([*images.values()])
            padded = np.concatenate([stacked, np.repeat(stacked[:1], width - len(stacked), 0)])  # one shape, one compilation
            found = dict(zip(images, np.asarray(jax.nn.softmax(logits_fn(unit_interval(padded)))), strict=False))
        for path in paths[start:start + BATCH]:
            yield path, found.get(path), bad.get(path)


def classifier(opened, model):
    """The `Classifier` of weights and their model."""
    view = opened.preprocessing
    return models.as_classifier(model, view.get("mean"), view.get("std"))


def ranked(row, names, top):
    """The `top` most probable classes, [{"label", "name" (None: not known), "identifier" (ImageNet's), "probability"}, ...].

    Args:
        row: (classes,) probabilities.
        names: of the classes, or (WordNet identifier, names) of ImageNet's; an identifier alone gets its names. None: not known.
        top: number of classes.
    """
    found, identifiers = [], dict(imagenet.classes())
    for label in np.argsort(-row, kind="stable")[:top]:
        name = None if names is None else names[label]
        identifier, name = name if isinstance(name, tuple) else (name, identifiers[name]) if name in identifiers else (None, name)
        found.append({"label": int(label), "name": name} | ({"identifier": identifier} if identifier else {}) | {"probability": float(row[label])})
    return found
