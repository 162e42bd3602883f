"""Parts of a set by what its examples are: classes, renumbered, or the files that a list names."""
import functools
import json
import pathlib

import numpy as np

from vmamba_jax.data.source import Source, Subset, digest


def select_classes(source, classes):
    """The examples of some classes, as a source of its own; label k is classes[k].

    classes: names of the source's classes, in the wanted order of labels. Raises ValueError for one that it does not have, or that comes twice.
    """
    _check(source)
    classes = tuple(map(str, classes))
    if unknown := [name for name in classes if name not in source.classes]:
        raise ValueError(f"classes must be classes of {source!r}, which has no {', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}")
    if len(set(classes)) != len(classes):
        raise ValueError("classes must not repeat a name")
    return Relabelled(source, classes)


class Relabelled(Subset):
    """The examples of another source's `classes`, in its order, with their places among these as labels."""

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
    """The examples whose files a list names, in the list's order.

    source: with `files`: a folder, a tar file, or ImageNet's.
    path: a text file, one name a line, as RobustBench's, or JSON, a list of names or {"images": list}, as that of Malik et al. Of a name the
        last two parts count, <class>/<file>, or the last where the source's files lie in no class folders.
    The split's name tells the list's. Raises ValueError for a name that the source does not have, or that comes twice, naming it.
    """
    _check(source)
    if not hasattr(source, "files"):
        raise ValueError(f"source must be of files (a folder, a tar file), got {source!r}")
    path = pathlib.Path(path)
    names = _names(path)
    parts = 2 if any("/" in name.removeprefix("./") for name in source.files) else 1
    places = {_end(name, parts): i for i, name in enumerate(source.files)}
    wanted = [_end(name, parts) for name in names]
    if absent := [name for name in wanted if name not in places]:
        raise ValueError(f"{path}: {source!r} lacks {len(absent)} of {len(wanted)} files: {', '.join(absent[:3])}{', ...' * (len(absent) > 3)}")
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"{path}: {next(name for name in wanted if wanted.count(name) > 1)} comes twice")
    part = Subset(source, [places[name] for name in wanted])
    part.split = f"{source.split}[{path.name}: {len(part)} of {len(source)}]"
    return part


def _names(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        names = json.loads(text)
        names = names.get("images") if isinstance(names, dict) else names
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: expected names of files, one a line, or as JSON a list of them or {{'images': list}}")
    return names


def _end(name, parts):
    return "/".join(name.replace("\\", "/").split("/")[-parts:])


def _check(source):
    if not isinstance(source, Source):
        raise TypeError(f"source must be a data.Source, got {type(source).__name__}")
