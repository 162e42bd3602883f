"""Subsets of a source by class, or by a list of files."""
import collections
import functools
import pathlib

import numpy as np

from vmamba_jax.core import limits
from vmamba_jax.data.source import Subset, check_source, digest


def select_classes(source, classes):
    """The examples of some classes, as a source of its own; label k is classes[k].

    Args:
        source: a `data.Source`.
        classes: names of its classes, in the order of the new labels.

    Raises:
        ValueError: a class that the source does not have, or a repeated one.
    """
    check_source(source)
    classes = tuple(map(str, classes))
    if unknown := [name for name in classes if name not in source.classes]:
        raise ValueError(f"classes={', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}: expected classes of {source!r}")
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes={classes}: expected each name once")
    return Relabeled(source, classes)


def match_classes(source, classes):
    """The source with its labels numbered by `classes`, such as those of the training split; unchanged if they are its own.

    A split that lacks a class numbers the others differently. A source without class names (`numbered`) is unchanged.

    Args:
        source: a `data.Source`.
        classes: names in label order, at least all of the source's.

    Raises:
        ValueError: the source has classes that `classes` lacks; the message lists them.
    """
    check_source(source)
    classes = tuple(map(str, classes))
    if source.classes == classes or (numbered(source.classes) and len(source.classes) <= len(classes)):
        return source
    if unknown := [name for name in source.classes if name not in classes]:
        shown = lambda names: ", ".join(names[:5]) + ", ..." * (len(names) > 5)
        raise ValueError(f"classes={shown(unknown)} of {source!r}: expected some of the {len(classes)} classes {shown(classes)}")
    return Relabeled(source, classes)


def numbered(classes):
    """Whether class names are the label numbers "0", "1", ...: those of a set without names, whose highest classes may be absent."""
    return all(name == str(k) for k, name in enumerate(classes))


class Relabeled(Subset):
    """The examples of some classes of another source, in its order; their labels are positions in `classes`."""

    def __init__(self, source, classes):
        self._places = np.array([classes.index(name) if name in classes else -1 for name in source.classes], np.int32)
        super().__init__(source, np.flatnonzero(self._places[source.labels] >= 0))
        self.classes = classes

    def gather(self, indices):
        images, labels = super().gather(indices)
        return images, self._places[labels]

    def picture(self, i):
        image, label = super().picture(i)
        return image, int(self._places[label])

    @functools.cached_property
    def labels(self):
        labels = self._places[super().labels]
        labels.flags.writeable = False
        return labels

    @functools.cached_property
    def fingerprint(self):
        return digest(super().fingerprint, self.classes)


def subset_from_list(source, path):
    """The examples whose files a list names, in the list's order; the result's split has the name of the list.

    Args:
        source: a source of files: a folder, a tar file, or ImageNet's.
        path: a text file with one name per line, as RobustBench's, or JSON: a list of names or {"images": list}, as that of Malik et al. Only the
            last two parts of a name count, <class>/<file>, or the last one if the source's files are in no class folders.

    Raises:
        ValueError: a name that the source does not have, or a repeated one.
    """
    check_source(source)
    if not hasattr(source, "files"):
        raise ValueError(f"source={source!r}: expected a source of files (a folder, a tar file)")
    path = pathlib.Path(path)
    names = _names(path)
    parts = 2 if any("/" in name.removeprefix("./") for name in source.files) else 1
    places = {_end(name, parts): i for i, name in enumerate(source.files)}
    wanted = [_end(name, parts) for name in names]
    if absent := [name for name in wanted if name not in places]:
        raise ValueError(f"{path}: {source!r} lacks {len(absent)} of {len(wanted)} files: {', '.join(absent[:3])}{', ...' * (len(absent) > 3)}")
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"{path}: expected each name once, got {collections.Counter(wanted).most_common(1)[0][0]} twice")
    part = Subset(source, [places[name] for name in wanted])
    part.split = f"{source.split}[{path.name}: {len(part)} of {len(source)}]"
    return part


def _names(path):
    if path.suffix == ".json":
        names = limits.parse_json(path.read_bytes(), path)
        names = names.get("images") if isinstance(names, dict) else names
    else:
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected text in UTF-8, but {error}") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: expected names of files, one per line, or as JSON a list of them or {{'images': list}}")
    return names


def _end(name, parts):
    return "/".join(name.replace("\\", "/").split("/")[-parts:])
