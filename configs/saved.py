"""The config of an earlier run, read from its config.json: `--config configs/saved.py:runs/digits/config.json`.

Keys that are newer than the file get the neutral values of configs/base.py, which are what the earlier version did.
"""
import json

from configs import base
from vmamba_jax.core.run_folder import run_folder


def get_config(arg=None):
    """The config saved at the path `arg`; a ValueError if the file is missing, is not JSON or is not the config of a run."""
    try:
        return base.complete(json.loads(run_folder(arg or "").read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{arg!r}: expected the config.json of a run ({error})") from None
