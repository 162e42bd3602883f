"""The reader of a run's saved steps: finds the latest and the best, verifies checksums, needs no template; a run may save meanwhile."""
import contextlib
import pathlib
import time
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from vmamba_jax.core import checks, files
from vmamba_jax.core.run_folder import RemotePath, run_folder
from vmamba_jax.core.saved_steps import checksums, step_folders

ITEMS = {"state": ocp.StandardCheckpointHandler, "extra": ocp.JsonCheckpointHandler, "checksums": ocp.JsonCheckpointHandler}
PATIENCE, PAUSE = 60.0, 0.1  # seconds that a reader retries while a run saves and removes steps, and between two looks at the folder


class DamagedCheckpoint(ValueError):
    """A saved step cannot be read or differs from what was saved; the message names step, arrays and cause."""


class SavedSteps:
    """The steps in a folder, read-only; a context manager. A run may save to the folder meanwhile.

    Damaged steps are handled as `vmamba_jax.training.Checkpoints` says of read_only.

    Args:
        directory: the folder.
        best_metric: metric that ranks the steps; None: the recorded one.
    """

    read_only = True

    def __init__(self, directory, best_metric=None):
        self.directory, self._passed_over = pathlib.Path(directory).absolute(), frozenset()
        if not self.directory.is_dir():
            raise FileNotFoundError(f"directory={str(self.directory)!r}: expected a folder of checkpoints, which does not exist")
        about = step_folders.read_about(self.directory)
        self.best_metric, self.best_mode = best_metric or about.get("best_metric"), about.get("best_mode", "max")
        self._retrying(self._pass_over)
        metrics = ocp.JsonCheckpointHandler(filename="metrics")  # without a handler for every item, Orbax logs a warning
        self._orbax = ocp.Checkpointer(ocp.CompositeCheckpointHandler(metrics=metrics, **{name: handler() for name, handler in ITEMS.items()}))

    def restore_variables(self, step="latest", ema=False):
        """Model variables saved at a step as numpy arrays, without a template: {"params": ..., "batch_stats": ..., ...}.

        Args:
            step: a number, "latest" or "best".
            ema: True: the averaged weights instead of the last, ValueError if the step has none. None: the averaged weights if the step has them.
        """
        def load(step):
            return self._load(step, jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), self._saved(step)))

        step, state = self._undamaged(step, load)
        averaged = state.get("ema")
        if ema and averaged is None:
            raise ValueError(f"ema=True for step {step} in {self.directory}, which has no averaged weights: expected a run with ema_decay")
        return {"params": averaged if ema or (ema is None and averaged is not None) else state["params"], **state["model_state"]}

    def extra(self, step="latest"):
        """The `extra` that the step was saved with."""
        step = self.find(step)
        with reading(step, "extra"):
            return self._read(step, extra=ocp.args.JsonRestore()).extra

    def metrics(self, step="latest"):
        """The metrics that the step was saved with, or None."""
        return self._metrics(self.find(step))

    @property
    def config(self):
        """The description of the run written beside the steps, or None."""
        return step_folders.read_about(self.directory).get("config")

    @property
    def steps(self):
        """Complete steps, ascending."""
        return [step for step in step_folders.complete(self.directory) if step not in self._passed_over]

    @property
    def latest_step(self):
        return max(self.steps, default=None)

    @property
    def best_step(self):
        """The best step by `best_metric`, or None if no step has it; of equal ones the newest."""
        if self.best_metric is None:
            return None
        ranked = {step: metrics[self.best_metric] for step in self.steps if (metrics := self._metrics(step)) is not None}
        sign = 1 if self.best_mode == "max" else -1
        return max(ranked, key=lambda step: (sign * ranked[step], step), default=None)

    def find(self, step):
        """The step number of "latest", "best" or a number; FileNotFoundError if there is no such step."""
        return self._retrying(lambda: self._find(step))

    def close(self):
        self._orbax.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def _metrics(self, step):
        with reading(step, "its metrics"):
            return files.read_json(self.directory / str(step) / "metrics" / "metrics")

    def _find(self, step):
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

    def _read(self, step, **items):
        return self._orbax.restore(self.directory / str(step), args=ocp.args.Composite(**items))

    def _saved(self, step):
        """Tree of the saved arrays' shapes and dtypes."""
        with reading(step, "its metadata"):
            return self._orbax.metadata(self.directory / str(step)).item_metadata.state.tree

    def _retrying(self, read):
        """read(); again while it fails because a run that saves to the folder has replaced the steps meanwhile."""
        end = time.monotonic() + PATIENCE
        while True:
            before = self._listing() if self.read_only else None
            try:
                return read()
            except (DamagedCheckpoint, FileNotFoundError):
                if not self.read_only or time.monotonic() > end or self._is_still(before):
                    raise

    def _listing(self):
        """What tells whether a run has changed the folder."""
        return step_folders.listing(self.directory)

    def _is_still(self, before):
        """Whether the folder has the listing of `before` after a pause, so that no run changed it meanwhile."""
        time.sleep(PAUSE)
        return self._listing() == before

    def _pass_over(self):
        """Names the steps that a reader passes over."""
        before = self._listing()
        found = step_folders.damaged(self.directory, self.best_metric)
        if found:
            if not self._is_still(before):
                raise DamagedCheckpoint(step_folders.listed(self.directory, found))
            warnings.warn(f"{step_folders.listed(self.directory, found)}; passed over", RuntimeWarning, stacklevel=6)
        self._passed_over = frozenset(found)

    def _undamaged(self, step, load):
        """(step, load(step)); for "latest", of the newest undamaged step."""
        return self._retrying(lambda: self._load_undamaged(step, load))

    def _load_undamaged(self, step, load):
        before = self._listing() if self.read_only else None
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
        with reading(step):
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
        """Warns about {step: damage} of newer steps than the one restored; returns the warning."""
        if self.read_only and not self._is_still(before):  # removed by the run meanwhile
            raise DamagedCheckpoint("; ".join(damage.values()))
        text = f"{'; '.join(damage.values())}; step {instead} of {self.directory} is restored instead"
        warnings.warn(text, RuntimeWarning, stacklevel=6)
        return text


def open_steps(directory, best_metric=None):
    """The `SavedSteps` of a folder, or the `remote.RemoteSteps` of a URL."""
    if isinstance(run_folder(directory), RemotePath):
        from vmamba_jax.core.saved_steps.remote import RemoteSteps
        return RemoteSteps(directory, best_metric)
    return SavedSteps(directory, best_metric)


def restore_variables(directory, step="latest", ema=False):
    """Model variables from a folder of checkpoints, also while a run writes to it: see `SavedSteps.restore_variables`."""
    with open_steps(directory) as saved:
        return saved.restore_variables(step, ema)


def first_line(error):
    """An error's type and the first line of its message."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _anywhere(flag):
    """Whether a flag is set in any process."""
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any()) if jax.process_count() > 1 else flag


@contextlib.contextmanager
def reading(step, what="it"):
    """Turns any exception of Orbax during reading into a DamagedCheckpoint; for a truncated file it is a bare Exception."""
    try:
        yield
    except Exception as error:
        raise DamagedCheckpoint(f"step {step}: {what} cannot be read: {first_line(error)}") from error
