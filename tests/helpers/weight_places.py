"""Small weights in every kind of place: a training run's folder, a converted folder, a released file."""
import json

import numpy as np
import safetensors.numpy
from flax.traverse_util import unflatten_dict

import vmamba_jax
from vmamba_jax import checkpoints, data, training
from vmamba_jax.checkpoints.convert import leaves_of

FIELDS = {"embed_dim": 8, "depth": 1, "num_heads": 2, "image_size": 32}
NAMES = ("apple", "banana", "cherry")


def vit(**fields):
    """A DeiT of one block of 8 channels for 32 pixels and three classes."""
    return vmamba_jax.create_model("deit_tiny", **FIELDS | {"num_classes": 3} | fields)


def random(model, seed=0):
    """Numbers for every leaf of a model, without running its initialization."""
    rng = np.random.default_rng(seed)
    return unflatten_dict({path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in leaves_of(model).items()})


def write_places(folder):
    """Write run/ (steps 1, the best, and 2; an average; class names), converted/ and weights.safetensors.

    Returns:
        {0: variables of the average, 1: of step 1 and the file, 2: of step 2 and the converted folder}.
    """
    made = {step: random(vit(), step) for step in (0, 1, 2)}
    config = {"model": {"name": "deit_tiny", "overrides": FIELDS}, "preprocessing": {"mean": [0.5], "std": [0.25]}, "data": {"options": {"size": 32}}}
    write_run(folder / "run", config, {1: made[1], 2: made[2]}, average=made[0], names=NAMES)
    checkpoints.save_variables(folder / "converted", made[2], {"model": "deit_tiny", "overrides": FIELDS | {"num_classes": 3}})
    safetensors.numpy.save_file(checkpoints.to_state_dict(vit(), made[1]), folder / "weights.safetensors")
    return made


def write_run(folder, config, steps, average=None, names=None):
    """Write the folder of a run: `config` as config.json, class names, and the variables of each step, of which the first is the best."""
    with training.Checkpoints(folder / "checkpoints", keep_latest=5, best_metric="score") as saving:
        for step, variables in steps.items():
            state = {name: tree for name, tree in variables.items() if name != "params"}
            saving.save(training.TrainState(step=np.int32(step), params=variables["params"], model_state=state, opt_state={},
                                            ema=None if average is None else average["params"]), {"score": -float(step)})
    (folder / "config.json").write_text(json.dumps(config))
    if names is not None:
        data.save_class_names(folder, names)
