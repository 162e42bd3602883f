"""Small trained models that come with the package: each a folder of `save_variables`, whose metadata.json is its model card."""
import json
import pathlib

from vmamba_jax.checkpoints.store import METADATA

HERE = pathlib.Path(__file__).parent


def names():
    """Names of the example models."""
    return tuple(sorted(path.parent.name for path in HERE.glob(f"*/{METADATA}")))


def folder(name):
    """The folder of an example model; a ValueError lists the names for any other."""
    if name not in names():
        raise ValueError(f"name={name!r}: expected one of {', '.join(names())}")
    return HERE / name


def card(name):
    """What is known of an example model.

    Returns:
        {"about", "model", "overrides", "classes", "parameters", "preprocessing", "data", "data_about", "intended_use", "limits", "license", "config",
        "recipe", "objective", "seed", "step", "evaluation", "commit", "versions", "sha256"}: "evaluation" has accuracies in [0, 1] with 95 % intervals over
        the test images, "config" and "recipe" are the training run's, "sha256" is `parallel.fingerprint` of the variables.
    """
    return {key: value for key, value in json.loads((folder(name) / METADATA).read_text(encoding="utf-8")).items() if key != "files"}
