"""Finding a data set's files under a root folder, and saying what belongs where when they are not there."""
import os
import pathlib

from vmamba_jax.core import checks

ROOT_VARIABLE = "VMAMBA_JAX_DATA"
SPLITS = ("train", "validation", "test")


class DataNotFoundError(FileNotFoundError):
    """Data files are absent; the message says which files to put where, and where they come from."""


def check_split(split):
    checks.choice("split", split, SPLITS)


def root_folder(root, advice):
    """root, or $VMAMBA_JAX_DATA for None, as a Path; DataNotFoundError with `advice` unless it is a folder."""
    root = root or os.environ.get(ROOT_VARIABLE)
    if not root:
        raise DataNotFoundError(f"no data folder was given: pass root=... or set the environment variable {ROOT_VARIABLE}. {advice}")
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DataNotFoundError(f"root {str(root)!r} is not a folder. {advice}")
    return root


def find_files(root, folders, choices, advice):
    """The first complete set of files among the folders under root.

    folders: names tried in turn ("" is root itself). choices: sets of files that would do, each a list with, for every file, the
    spellings it may have. A set found in part raises DataNotFoundError naming what is missing.
    """
    root, partial = root_folder(root, advice), None
    for folder in folders:
        for files in choices:
            paths = [next((p for name in spellings if (p := root / folder / name).is_file()), None) for spellings in files]
            if all(paths):
                return paths
            if any(paths):
                partial = partial or (root / folder, [spellings[0] for spellings, p in zip(files, paths, strict=True) if p is None])
    if partial:
        raise DataNotFoundError(f"{str(partial[0])!r} lacks {', '.join(partial[1])}. {advice}")
    raise DataNotFoundError(f"none of the files are in {str(root)!r}. {advice}")
