"""Curves on Weights & Biases beside the local files, where a config asks for it; the package is imported only then."""
import hashlib
import pathlib

import jax

from experiments.common.cli import ConfigError


def logger(project, workdir, config):
    """`(step, values)` that logs a line to the run of this workdir in `project`, or None where project is "" and in all but the first process.

    config: plain dict, shown with the run. A resumed run goes on under the same id. ConfigError where the package is not installed.
    """
    if not project:
        return None
    try:
        import wandb
    except ImportError:
        raise ConfigError(f"config.wandb={project!r} needs the package wandb: pip install wandb, or --config.wandb=''") from None
    if jax.process_index() != 0:
        return None
    workdir = pathlib.Path(workdir).absolute()
    run = wandb.init(project=project, name=workdir.name, dir=str(workdir), config=config, resume="allow",
                     id=hashlib.sha256(str(workdir).encode()).hexdigest()[:16])
    return lambda step, values: run.log(values, step=step)
