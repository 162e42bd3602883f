"""The config of an earlier run, from its config.json: `--config configs/saved.py:runs/digits/config.json`."""
import json

import ml_collections


def get_config(arg=None):
    """arg: path of a config.json. Raises ValueError where it is missing or not JSON."""
    try:
        with open(arg or "", encoding="utf-8") as file:
            saved = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"no saved config at {arg!r}: {error}") from None
    return ml_collections.ConfigDict(_tuples(saved))


def _tuples(value):
    """JSON has lists where configs have tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
