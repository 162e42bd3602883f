"""Finds a data set's files under a root folder; the errors name the files to put there."""
import os
import pathlib

from vmamba_jax.core import checks

ROOT_VARIABLE = "VMAMBA_JAX_DATA"
SPLITS = ("train", "validation", "test")


class DataNotFoundError(FileNotFoundError):
    """Absent data files; the message names them, their folder and their source."""


def check_split(split):
    checks.choice("split", split, SPLITS)


def root_folder(root, advice):
    """The data folder as a Path.

    Args:
        root: path; None: $VMAMBA_JAX_DATA.
        advice: sentences for the error, about the files to put there.

    Raises:
        DataNotFoundError: no folder given, or none at that path.
    """
    root = root or os.environ.get(ROOT_VARIABLE)
    if not root:
        raise DataNotFoundError(f"root=None: expected a data folder; pass root=... or set the environment variable {ROOT_VARIABLE}. {advice}")
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DataNotFoundError(f"root={str(root)!r}: expected a folder. {advice}")
    return root


def find_files(root, folders, choices, advice):
    """Paths of the first complete set of files in the folders under root.

    Args:
        root, advice: see `root_folder`.
        folders: names to try in order; "" is root itself.
        choices: alternative sets of files; each is a list with the accepted spellings of every file.

    Raises:
        DataNotFoundError: no complete set; of a partial one it names the missing files.
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
    raise DataNotFoundError(f"root={str(root)!r}: expected the files of the set, got none of them. {advice}")
