"""Checkpoints of a run: saved asynchronously, the latest and the best kept, verified by checksums when restored."""
import contextlib
import json
import math
import pathlib
import shutil
import time
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as managers

from vmamba_jax.core import checks, files
from vmamba_jax.training.run import checksums, state_trees, step_folders

ITEMS = {"state": ocp.StandardCheckpointHandler, "extra": ocp.JsonCheckpointHandler, "checksums": ocp.JsonCheckpointHandler}
PATIENCE, PAUSE = 60.0, 0.1  # seconds that a reader retries while a run saves and removes steps, and between two looks at the folder


class DamagedCheckpoint(ValueError):
    """A saved step cannot be read or differs from what was saved; the message names step, arrays and cause."""


class SaveError(OSError):
    """A step could not be saved; the message names the step, the cause and the last complete step."""


class Checkpoints:
    """A folder of numbered checkpoints; a context manager whose exit waits for pending saves.

    Steps that lack a file, or whose metrics cannot be read or differ from the saved ones, are named in a warning and renamed to STEP.damaged when
    the folder is opened (read_only: passed over). Every array is saved with its checksum, and restoring a step verifies them. Restoring "latest"
    then returns the newest undamaged step with a warning and renames the damaged ones (read_only: leaves them); restoring a step by number or
    "best" raises DamagedCheckpoint, as does "latest" if all are damaged. Nothing damaged is deleted.

    Args:
        directory: created if absent.
        keep_latest: number of newest steps kept, >= 1.
        keep_best: number of best steps by `best_metric` kept besides, >= 0.
        best_metric: name of the metric that ranks the steps; a step saved without it, or with a non-finite value, is never best. None: no
            ranking.
        best_mode: "max" or "min".
        config: JSON-able description of the run, written beside the steps; None: none.
        read_only: change nothing; `best_metric` is then the recorded one. A run may save to the folder meanwhile.
    """

    def __init__(self, directory, keep_latest=2, keep_best=1, best_metric=None, best_mode="max", config=None, read_only=False):
        checks.count("keep_latest", keep_latest, 1)
        checks.count("keep_best", keep_best, 0)
        checks.choice("best_mode", best_mode, ("max", "min"))
        self.directory = pathlib.Path(directory).absolute()
        self.read_only, self._saving, self._passed_over = read_only, None, frozenset()
        if read_only:
            if not self.directory.is_dir():
                raise FileNotFoundError(f"directory={str(self.directory)!r}: expected a folder of checkpoints, which does not exist")
            about = step_folders.read_about(self.directory)
            best_metric, best_mode = best_metric or about.get("best_metric"), about.get("best_mode", best_mode)
        else:
            _prepare(self.directory, best_metric=best_metric, best_mode=best_mode, **({} if config is None else {"config": config}))
        self.best_metric, self.best_mode, self._keep = best_metric, best_mode, (keep_latest, keep_best)
        if read_only:
            self._retrying(self._pass_over)
        self._orbax = self._open()

    def _open(self):
        """Orbax's manager of the folder, or for a reader its handler of one step: the manager fails in a folder whose steps come and go."""
        handlers = {name: handler() for name, handler in ITEMS.items()}
        if self.read_only:
            return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers))
        keep_latest, keep_best = self._keep

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
        args = ocp.args.Composite(**items)
        return self._orbax.restore(self.directory / str(step), args=args) if self.read_only else self._orbax.restore(step, args=args)

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
        tree, extra = state_trees.tree(state), extra or {}
        sums = {"step": step, "state": checksums.of_tree(tree), "extra": checksums.of_json(extra),
                "metrics": None if metrics is None else checksums.of_json(metrics)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(tree), extra=ocp.args.JsonSave(extra), checksums=ocp.args.JsonSave(sums))
        self._saving = step
        with self._save_errors():
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

    def restore_variables(self, step="latest", ema=False):
        """Model variables saved at a step as numpy arrays, without a template: {"params": ..., "batch_stats": ..., ...}.

        Args:
            step: a number, "latest" or "best".
            ema: the averaged weights instead of the last; ValueError if the step has none.
        """
        def load(step):
            return self._load(step, jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), self._saved(step)))

        step, state = self._undamaged(step, load)
        if ema and state["ema"] is None:
            raise ValueError(f"ema=True for step {step} in {self.directory}, which has no averaged weights: expected a run with ema_decay")
        return {"params": state["ema" if ema else "params"], **state["model_state"]}

    def extra(self, step="latest"):
        """The `extra` that the step was saved with."""
        step = self.find(step)
        with _damage(step, "extra"):
            return self._read(step, extra=ocp.args.JsonRestore()).extra

    def metrics(self, step="latest"):
        """The metrics that the step was saved with, or None."""
        return self._metrics(self.find(step))

    def _metrics(self, step):
        with _damage(step, "its metrics"):
            return files.read_json(self.directory / str(step) / "metrics" / "metrics")

    @property
    def config(self):
        """The description of the run written beside the steps, or None."""
        return step_folders.read_about(self.directory).get("config")

    @property
    def steps(self):
        """Complete steps, ascending, pending saves included."""
        if self.read_only:
            return [step for step in step_folders.complete(self.directory) if step not in self._passed_over]
        return [step for step in self._orbax.all_steps() if not step_folders.unfinished(self.directory / str(step))]

    @property
    def latest_step(self):
        return max(self.steps, default=None)

    @property
    def best_step(self):
        """The best step by `best_metric`, or None if no step has it; of equal ones the newest."""
        if self.best_metric is None:
            return None
        if not self.read_only:
            return self._orbax.best_step()
        ranked = {step: metrics[self.best_metric] for step in self.steps if (metrics := self._metrics(step)) is not None}
        sign = 1 if self.best_mode == "max" else -1
        return max(ranked, key=lambda step: (sign * ranked[step], step), default=None)

    def find(self, step):
        """The step number of "latest", "best" or a number; FileNotFoundError if there is no such step."""
        return self._retrying(lambda: self._find(step))

    def _find(self, step):
        self.wait()
        steps = self.steps
        if isinstance(step, str):
            checks.choice("step", step, ("latest", "best"))
        else:
            checks.count("step", step, 0)
        found = {"latest": self.latest_step, "best": self.best_step}.get(step, step if step in steps else None)
        if found is None:
            why = f"; best_metric is {self.best_metric!r}" if step == "best" else ""
            raise FileNotFoundError(f"step={step!r}: expected one of {steps or 'no checkpoint'} in {self.directory}{why}")
        return found

    def wait(self):
        """Waits until every save is on disk; SaveError if one failed."""
        if self.read_only:
            return
        with self._save_errors():
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

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @contextlib.contextmanager
    def _save_errors(self):
        """Turns any exception of Orbax during saving into a SaveError, and removes the unfinished step folder."""
        try:
            yield
        except Exception as error:  # of many kinds: TensorStore's ValueErrors, OSErrors of threads
            step, self._saving = self._saving, None
            if jax.process_index() == 0:
                for part in self.directory.glob(f"{step}.orbax-checkpoint-tmp*"):
                    shutil.rmtree(part, ignore_errors=True)
            whole = [s for s in step_folders.complete(self.directory) if s != step]
            with contextlib.suppress(Exception):  # Orbax has dropped the steps that the failed one would have replaced
                self._orbax.reload()
            raise SaveError(f"step {step} could not be saved in {self.directory}: {_first_line(error)}; "
                            f"the last step saved is {max(whole, default='none')}") from error

    def _retrying(self, read):
        """read(); again while it fails because a run that saves to the folder has replaced the steps meanwhile."""
        end = time.monotonic() + PATIENCE
        while True:
            before = step_folders.listing(self.directory) if self.read_only else None
            try:
                return read()
            except (DamagedCheckpoint, FileNotFoundError):
                if not self.read_only or time.monotonic() > end or self._is_still(before):
                    raise

    def _is_still(self, before):
        """Whether the folder has the listing of `before` after a pause, so that no run changed it meanwhile."""
        time.sleep(PAUSE)
        return step_folders.listing(self.directory) == before

    def _pass_over(self):
        """Names the steps that a reader passes over."""
        before = step_folders.listing(self.directory)
        found = step_folders.damaged(self.directory, self.best_metric)
        if found:
            if not self._is_still(before):
                raise DamagedCheckpoint(step_folders.listed(self.directory, found))
            warnings.warn(f"{step_folders.listed(self.directory, found)}; passed over", RuntimeWarning, stacklevel=5)
        self._passed_over = frozenset(found)

    def _undamaged(self, step, load):
        """(step, load(step)); for "latest", of the newest undamaged step."""
        return self._retrying(lambda: self._load_undamaged(step, load))

    def _load_undamaged(self, step, load):
        before = step_folders.listing(self.directory) if self.read_only else None
        chosen, damage = self._find(step), {}
        for number in [chosen] if step != "latest" else reversed(self.steps):
            try:
                found = load(number)
            except DamagedCheckpoint as error:
                damage[number], found = str(error), None
            if _anywhere(found is None):
                damage.setdefault(number, f"step {number}: damaged for another process")
                continue
            if damage:
                self._set_aside(damage, number, before)
            return number, found
        raise DamagedCheckpoint(f"no step in {self.directory} can be restored: " + "; ".join(damage.values()))

    def _load(self, step, target):
        """The state saved at a step, in the structure of `target`; DamagedCheckpoint if a checksum differs."""
        with _damage(step):
            found = self._read(step, state=ocp.args.StandardRestore(target), extra=ocp.args.JsonRestore(), checksums=ocp.args.JsonRestore())
            sums = found.checksums
            changed = checksums.differing(found.state, sums["state"]) + ["extra"] * (checksums.of_json(found.extra) != sums["extra"])
            holds = int(np.asarray(found.state["step"]))
        if holds != step:
            raise DamagedCheckpoint(f"step {step}: its folder holds step {holds}: expected folders under the names they were saved with")
        if changed:
            raise DamagedCheckpoint(f"step {step}: checksums differ from the saved ones: {', '.join(changed)}")
        return found.state

    def _set_aside(self, damage, instead, before):
        if self.read_only and not self._is_still(before):  # removed by the run meanwhile
            raise DamagedCheckpoint("; ".join(damage.values()))
        text = f"{'; '.join(damage.values())}; step {instead} of {self.directory} is restored instead"
        warnings.warn(text, RuntimeWarning, stacklevel=6)
        if self.read_only:
            return
        if jax.process_index() == 0:
            for step in damage:
                step_folders.set_aside(self.directory, step)
            step_folders.record_damage(self.directory, text)
        _barrier()
        self._orbax.reload()

    def _saved(self, step):
        """Tree of the saved arrays' shapes and dtypes."""
        with _damage(step, "its metadata"):
            if self.read_only:
                return self._orbax.metadata(self.directory / str(step)).item_metadata.state.tree
            return self._orbax.item_metadata(step).state.tree


def restore_variables(directory, step="latest", ema=False):
    """Model variables from a folder of checkpoints, also while a run writes to it: see `Checkpoints.restore_variables`."""
    with Checkpoints(directory, read_only=True) as checkpoints:
        return checkpoints.restore_variables(step, ema)


def _prepare(directory, **about):
    """Creates the folder, clears it of unfinished steps, sets damaged ones aside, and writes `about` to about.json."""
    try:
        json.dumps(about)
    except (TypeError, ValueError) as error:
        raise TypeError(f"config={about['config']!r}: expected JSON-able content; {error}") from error
    if jax.process_index() == 0 and (told := step_folders.prepare(directory, about)):
        warnings.warn(told, RuntimeWarning, stacklevel=4)
    _barrier()


def _barrier():
    """Waits for the other processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("vmamba_jax.training.checkpointing")


def _anywhere(flag):
    """Whether a flag is set in any process."""
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any()) if jax.process_count() > 1 else flag


@contextlib.contextmanager
def _damage(step, what="it"):
    """Turns any exception of Orbax during reading into a DamagedCheckpoint; for a truncated file it is a bare Exception."""
    try:
        yield
    except Exception as error:
        raise DamagedCheckpoint(f"step {step}: {what} cannot be read: {_first_line(error)}") from error


def _first_line(error):
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
