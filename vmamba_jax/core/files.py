"""Files that others see whole or not at all."""
import contextlib
import os
import pathlib


@contextlib.contextmanager
def whole(path):
    """Within it, a path beside `path` to write a file to; at the end the file takes its place. Of one that fails nothing stays. Folders are made."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
