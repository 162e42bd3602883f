"""Checkpoints of a run: saved asynchronously, the latest and the best kept, verified by checksums when restored."""
import contextlib
import inspect
import json
import math
import pathlib
import shutil
import warnings

import jax
import orbax.checkpoint as ocp
from flax import serialization
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as managers

from vmamba_jax.core.run_folder import RemotePath, run_folder
from vmamba_jax.core.saved_steps import checksums, objects, step_folders
from vmamba_jax.core.saved_steps.reader import ITEMS, DamagedCheckpoint, SavedSteps, first_line, reading, restore_variables
from vmamba_jax.core.saved_steps.remote import RemoteSteps
from vmamba_jax.training.run import state_trees
from vmamba_jax.training.run.remote_checkpoints import RemoteSaver, check_options

__all__ = ["Checkpoints", "DamagedCheckpoint", "SaveError", "restore_variables"]


class SaveError(OSError):
    """A step could not be saved; the message names the step, the cause and the last complete step."""


class Checkpoints(SavedSteps):
    """A folder of numbered checkpoints; a context manager whose exit waits for pending saves.

    Steps that lack a file, or whose metrics cannot be read or differ from the saved ones, are named in a warning and renamed to STEP.damaged when
    the folder is opened (read_only: passed over). Every array is saved with its checksum, and restoring a step verifies them. Restoring "latest"
    then returns the newest undamaged step with a warning and renames the damaged ones (read_only: leaves them); restoring a step by number or
    "best" raises DamagedCheckpoint, as does "latest" if all are damaged. Nothing damaged is deleted.

    At a URL the steps are objects that `core.saved_steps.objects` describes; the rest is the same.

    Args:
        directory: created if absent; a path or a URL, gs:// or s3://.
        keep_latest: number of newest steps kept, >= 1.
        keep_best: number of best steps by `best_metric` kept besides, >= 0.
        best_metric: name of the metric that ranks the steps; a step saved without it, or with a non-finite value, is never best. None: no
            ranking.
        best_mode: "max" or "min".
        config: JSON-able description of the run, written beside the steps; None: none.
        read_only: change nothing; `best_metric` is then the recorded one. A run may save to the folder meanwhile.
    """

    def __new__(cls, directory, *args, **options):
        remote = cls is Checkpoints and isinstance(run_folder(directory), RemotePath)
        return super().__new__(_RemoteCheckpoints if remote else cls)

    def __init__(self, directory, keep_latest=2, keep_best=1, best_metric=None, best_mode="max", config=None, read_only=False):
        check_options(keep_latest, keep_best, best_mode)
        self.read_only, self._saving = read_only, None
        if read_only:
            super().__init__(directory, best_metric)
            return
        self.directory, self._passed_over = pathlib.Path(directory).absolute(), frozenset()
        _prepare(self.directory, best_metric=best_metric, best_mode=best_mode, **({} if config is None else {"config": config}))
        self.best_metric, self.best_mode = best_metric, best_mode
        self._orbax = self._manager(keep_latest, keep_best)

    def _manager(self, keep_latest, keep_best):
        """Orbax's manager of the folder."""
        handlers = {name: handler() for name, handler in ITEMS.items()}

        def rank(metrics):
            return metrics[self.best_metric]

        keep, ranked = [managers.LatestN(keep_latest)], self.best_metric is not None
        if ranked:
            # LatestN is needed beside BestN: Orbax's best_fn alone deletes the newest step of a worsening run, and a resume repeats steps.
            keep.append(managers.BestN(get_metric_fn=rank, reverse=self.best_mode == "min", n=keep_best, keep_checkpoints_without_metrics=False))
        options = ocp.CheckpointManagerOptions(
            best_fn=rank if ranked else None, best_mode=self.best_mode, preservation_policy=managers.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=True, todelete_subdir=step_folders.REMOVED)
        return ocp.CheckpointManager(self.directory, options=options, item_names=tuple(ITEMS), item_handlers=handlers)

    def _read(self, step, **items):
        return super()._read(step, **items) if self.read_only else self._orbax.restore(step, args=ocp.args.Composite(**items))

    def _saved(self, step):
        if self.read_only:
            return super()._saved(step)
        with reading(step, "its metadata"):
            return self._orbax.item_metadata(step).state.tree

    def save(self, state, metrics=None, extra=None):
        """Starts saving a state as step `state.step`; returns once its buffers may be reused.

        Args:
            state: `TrainState`.
            metrics: {name: number} with `best_metric`; None: the step is not ranked.
            extra: JSON-able, returned by `extra`; None: {}.

        Returns:
            False if that step is already saved, else True.

        Raises:
            ValueError: the step is before the latest one.
            KeyError: the metrics lack `best_metric`.
            SaveError: this save or the one before it failed (a full disk).
        """
        if self.read_only:
            raise ValueError(f"read_only=True for {self.directory}: expected False to save")
        step, latest = int(state.step), self.latest_step
        if latest is not None and step <= latest:
            if step in self.steps:
                return False
            raise ValueError(f"step={step}: expected more than {latest}, the latest step in {self.directory}")
        if metrics is not None:
            if self.best_metric is not None and self.best_metric not in metrics:
                raise KeyError(f"metrics with {', '.join(sorted(metrics))}: expected best_metric={self.best_metric!r} among them")
            metrics = {name: float(value) for name, value in metrics.items()}
            if self.best_metric is not None and not math.isfinite(metrics[self.best_metric]):
                metrics = None
        self.wait()
        with self._save_errors():
            return self._start(step, state_trees.tree(state), metrics, extra or {})

    def _start(self, step, tree, metrics, extra):
        """Start saving a step."""
        sums = {"step": step, "state": checksums.of_tree(tree), "extra": checksums.of_json(extra),
                "metrics": None if metrics is None else checksums.of_json(metrics)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(tree), extra=ocp.args.JsonSave(extra), checksums=ocp.args.JsonSave(sums))
        self._saving = step
        return self._orbax.save(step, args=items, metrics=metrics)

    def restore(self, template, step="latest"):
        """The state saved at a step, in the structure, dtypes and sharding of `template`.

        Args:
            template: `TrainState`.
            step: a number, "latest" or "best".

        Raises:
            FileNotFoundError: there is no such step.
            ValueError: the saved state does not fit; the message lists missing, unexpected and different arrays.
            DamagedCheckpoint: see the class.
        """
        def load(step):
            target = state_trees.tree(template)
            if lines := state_trees.differences(target, self._saved(step)):
                raise ValueError(f"step {step} in {self.directory} does not fit the state:\n  " + "\n  ".join(lines))
            return self._load(step, jax.tree.map(state_trees.abstract, target))

        return serialization.from_state_dict(template, {"carry": None, **self._undamaged(step, load)[1]})

    @property
    def steps(self):
        """Complete steps, ascending, pending saves included."""
        if self.read_only:
            return super().steps
        return [step for step in self._orbax.all_steps() if not step_folders.unfinished(self.directory / str(step))]

    @property
    def best_step(self):
        """The best step by `best_metric`, or None if no step has it; of equal ones the newest."""
        return super().best_step if self.read_only or self.best_metric is None else self._orbax.best_step()

    def _find(self, step):
        self.wait()
        return super()._find(step)

    def wait(self):
        """Waits until every save is on disk; SaveError if one failed."""
        if self.read_only:
            return
        with self._save_errors():
            self._join()

    def _join(self):
        self._orbax.wait_until_finished()
        self._settle()

    def close(self):
        with self._save_errors():
            self._orbax.close()
            self._settle()

    def _settle(self):
        """Flushes the step saved last to the disk, then deletes the steps that it replaces."""
        if self._saving is not None and jax.process_index() == 0:
            step_folders.sync(self.directory, self._saving)
            step_folders.clear(self.directory)
        self._saving = None

    @contextlib.contextmanager
    def _save_errors(self):
        """Turns any exception of Orbax during saving into a SaveError, and removes the unfinished step folder."""
        try:
            yield
        except Exception as error:  # of many kinds: TensorStore's ValueErrors, OSErrors of threads
            step, self._saving = self._saving, None
            whole = [s for s in self._after_failure(step) if s != step]
            raise SaveError(f"step {step} could not be saved in {self.directory}: {first_line(error)}; "
                            f"the last step saved is {max(whole, default='none')}") from error

    def _after_failure(self, step):
        """The complete steps, after the unfinished files of a step are removed."""
        if jax.process_index() == 0:
            for part in self.directory.glob(f"{step}.orbax-checkpoint-tmp*"):
                shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(Exception):  # Orbax has dropped the steps that the failed one would have replaced
            self._orbax.reload()
        return step_folders.complete(self.directory)

    def _set_aside(self, damage, instead, before):
        text = super()._set_aside(damage, instead, before)
        if not self.read_only:
            if jax.process_index() == 0:
                for step in damage:
                    step_folders.set_aside(self.directory, step)
                step_folders.record_damage(self.directory, text)
            _barrier()
            self._orbax.reload()
        return text


class _RemoteCheckpoints(RemoteSaver, Checkpoints):
    """`Checkpoints` at a URL."""

    def __init__(self, *args, **options):
        given = inspect.signature(Checkpoints.__init__).bind(self, *args, **options)
        given.apply_defaults()
        directory, keep_latest, keep_best, best_metric, best_mode, config, read_only = list(given.arguments.values())[1:]
        check_options(keep_latest, keep_best, best_mode)
        self.read_only = read_only
        if read_only:
            RemoteSteps.__init__(self, directory, best_metric)
            self._saving = None
        else:
            _check_config(config)
            self._open(directory, keep_latest, keep_best, best_metric, best_mode, config)

    def close(self):
        self.wait()

    def _after_failure(self, step):
        with contextlib.suppress(OSError):
            return _complete(self.directory)
        return []


def _complete(directory):
    """The complete steps of a remote folder."""
    return [step for step, keys in objects.listing(directory).items() if objects.MANIFEST in keys]


def _check_config(config):
    try:
        json.dumps(config)
    except (TypeError, ValueError) as error:
        raise TypeError(f"config={config!r}: expected JSON-able content; {error}") from error


def _prepare(directory, **about):
    """Creates the folder, clears it of unfinished steps, sets damaged ones aside, and writes `about` to about.json."""
    _check_config(about.get("config"))
    if jax.process_index() == 0 and (told := step_folders.prepare(directory, about)):
        warnings.warn(told, RuntimeWarning, stacklevel=4)
    _barrier()


def _barrier():
    """Waits for the other processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("vmamba_jax.training.checkpointing")
