"""Metrics on Weights & Biases besides the local files; the package is imported only if config.wandb names a project."""
import hashlib

import jax

from experiments.common.cli import ConfigError
from vmamba_jax.core.run_folder import RemotePath, run_folder


def logger(project, workdir, config):
    """A function `(step, values)` that logs to the run of this workdir; a resumed run keeps its id.

    Args:
        project: name of the project; "": no logging.
        workdir: the run's folder, whose path sets the id.
        config: plain dict, shown with the run.

    Returns:
        The function; None without a project, and in every process but the first.

    Raises:
        ConfigError: the package is not installed.
    """
    if not project:
        return None
    try:
        import wandb
    except ImportError:
        raise ConfigError(f"config.wandb={project!r}: expected the package wandb to be installed; pip install wandb, or set --config.wandb=''") from None
    if jax.process_index() != 0:
        return None
    workdir = run_folder(workdir).absolute()
    local = None if isinstance(workdir, RemotePath) else str(workdir)
    run = wandb.init(project=project, name=workdir.name, dir=local, config=config, resume="allow",
                     id=hashlib.sha256(str(workdir).encode()).hexdigest()[:16])
    return lambda step, values: run.log(values, step=step)
