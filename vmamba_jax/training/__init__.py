"""Training: pure per-device objectives, optimizer, checkpoints, metrics, and the training loop.

    state = training.create_state(classifier, optimizer, key, image_shape=(32, 32, 3))
    step = training.objectives.pgd_at(classifier, optimizer, attack=attacks.pgd(8 / 255, steps=10, step_size=2 / 255))
    state = training.train(step, state, batches, steps=10_000, key=key, workdir="runs/at")
"""
from vmamba_jax.training import objectives, sharding
from vmamba_jax.training.linear_probe import linear_probe
from vmamba_jax.training.optimization import optimizer, schedules, weight_decay
from vmamba_jax.training.optimization.skipping import skip_nonfinite
from vmamba_jax.training.run.checkpointing import Checkpoints, DamagedCheckpoint, SaveError, restore_variables
from vmamba_jax.training.run.lock import Locked, one_run
from vmamba_jax.training.run.metrics import Writer, read_metrics
from vmamba_jax.training.run.signals import Stopped
from vmamba_jax.training.state import TrainState, create_state
from vmamba_jax.training.trainer import Checkpointing, Monitoring, Validation, train

__all__ = ["Checkpointing", "Checkpoints", "DamagedCheckpoint", "Locked", "Monitoring", "SaveError", "Stopped", "TrainState", "Validation",
           "Writer", "create_state", "linear_probe", "objectives", "one_run", "optimizer", "read_metrics", "restore_variables", "schedules",
           "sharding", "skip_nonfinite", "train", "weight_decay"]
