"""Checkpoints of a run: asynchronous, the latest and the best kept, restored with clear errors."""
import json
import math
import os
import pathlib
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as managers

from .checks import choice, count, require

ITEMS = {"state": ocp.StandardCheckpointHandler, "extra": ocp.JsonCheckpointHandler}
ABOUT = "about.json"  # which metric ranks the steps, and the run's config


class Checkpoints:
    """A folder of numbered checkpoints, to be used as a context manager: leaving it waits for the saves under way.

    directory: made where absent. keep_latest: how many of the newest steps stay, >= 1. keep_best: how many of the best by `best_metric`
    stay besides ("max" or "min" by `best_mode`); a step saved without that metric, or with one that is not finite, is never best.
    config: JSON-able description of the run, written beside the steps. read_only: change nothing; `best_metric` is then the one recorded.
    Step folders that a killed process left unfinished are removed; read-only, they are passed over.
    """

    def __init__(self, directory, keep_latest=2, keep_best=1, best_metric=None, best_mode="max", config=None, read_only=False):
        require(count("keep_latest", keep_latest, 1), count("keep_best", keep_best), choice("best_mode", best_mode, ("max", "min")))
        self.directory = pathlib.Path(directory).absolute()
        if read_only:
            if not self.directory.is_dir():
                raise FileNotFoundError(f"no checkpoints: {self.directory} does not exist")
            about = _read(self.directory)
            best_metric, best_mode = best_metric or about.get("best_metric"), about.get("best_mode", best_mode)
        else:
            _prepare(self.directory, best_metric=best_metric, best_mode=best_mode, **({} if config is None else {"config": config}))
        self.best_metric, self.read_only = best_metric, read_only

        def rank(metrics):
            return metrics[best_metric]

        keep = [managers.LatestN(keep_latest)]
        if best_metric is not None:
            # LatestN is needed beside BestN: by itself Orbax's best_fn drops the newest step of a worsening run, and a resume goes back.
            keep.append(managers.BestN(get_metric_fn=rank, reverse=best_mode == "min", n=keep_best, keep_checkpoints_without_metrics=False))
        options = ocp.CheckpointManagerOptions(
            best_fn=rank if best_metric is not None else None, best_mode=best_mode, create=not read_only,
            preservation_policy=managers.AnyPreservationPolicy(keep), cleanup_tmp_directories=not read_only)
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=tuple(ITEMS),
                                              item_handlers={name: handler() for name, handler in ITEMS.items()})

    def save(self, state, metrics=None, extra=None):
        """Start saving a state under its own `state.step`; returns once its buffers may be reused, and False if that step is saved already.

        metrics: {name: number} that `best_metric` is looked up in. extra: JSON-able, given back by `extra`.
        Raises ValueError for a step before the latest one.
        """
        if self.read_only:
            raise ValueError(f"{self.directory} was opened read_only")
        step, latest = int(state.step), self.latest_step
        if latest is not None and step <= latest:
            if step in self.steps:
                return False
            raise ValueError(f"cannot save step {step}: {self.directory} already holds step {latest}, and steps only grow")
        if metrics is not None:
            if self.best_metric is not None and self.best_metric not in metrics:
                raise KeyError(f"metrics lack best_metric {self.best_metric!r}; they hold {', '.join(sorted(metrics))}")
            metrics = {name: float(value) for name, value in metrics.items()}
            if self.best_metric is not None and not math.isfinite(metrics[self.best_metric]):
                metrics = None
        items = ocp.args.Composite(state=ocp.args.StandardSave(_tree(state)), extra=ocp.args.JsonSave(extra or {}))
        return self._manager.save(step, args=items, metrics=metrics)

    def restore(self, template, step="latest"):
        """The state saved at a step, in the structure, dtypes and placement of `template`.

        step: a number, "latest" or "best". Raises FileNotFoundError where there is no such step, ValueError listing all that differs.
        """
        step = self.find(step)
        target = _tree(template)
        self._compare(_flat(target), step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(jax.tree.map(_abstract, target)))
        return serialization.from_state_dict(template, {"carry": None, **self._manager.restore(step, args=args).state})

    def restore_variables(self, step="latest", ema=False):
        """Model variables saved at a step as numpy arrays, with no template: {"params": ..., "batch_stats": ..., ...}.

        ema: the averaged weights instead of the last; ValueError where none were saved.
        """
        step = self.find(step)
        target = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), self._saved(step))
        state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))).state
        if ema and state["ema"] is None:
            raise ValueError(f"step {step} in {self.directory} holds no averaged weights: it was trained without ema_decay")
        return {"params": state["ema" if ema else "params"], **state["model_state"]}

    def extra(self, step="latest"):
        """What was given to `save` as `extra`."""
        return self._manager.restore(self.find(step), args=ocp.args.Composite(extra=ocp.args.JsonRestore())).extra

    def metrics(self, step="latest"):
        """The metrics a step was saved with, or None."""
        return self._manager.metrics(self.find(step))

    @property
    def config(self):
        """The description of the run written beside the steps, or None."""
        return _read(self.directory).get("config")

    @property
    def steps(self):
        """Complete steps, ascending, saves under way included."""
        return [step for step in self._manager.all_steps() if not _unfinished(self.directory / str(step))]

    @property
    def latest_step(self):
        return max(self.steps, default=None)

    @property
    def best_step(self):
        """The best step by `best_metric`, or None where no step has it."""
        return None if self.best_metric is None else self._manager.best_step()

    def find(self, step):
        """A step number for "latest", "best" or a number; FileNotFoundError where there is none."""
        self.wait()
        steps = self.steps
        require((step in ("latest", "best") or count("step", step)[0], f"step must be a number, 'latest' or 'best'; got {step!r}"))
        found = {"latest": self.latest_step, "best": self.best_step}.get(step, step if step in steps else None)
        if found is None:
            why = f"; best_metric is {self.best_metric!r}" if step == "best" else ""
            raise FileNotFoundError(f"no step {step} in {self.directory}, which holds {steps or 'no checkpoint'}{why}")
        return found

    def wait(self):
        """Wait until every save is on disk."""
        self._manager.wait_until_finished()

    def close(self):
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def _saved(self, step):
        """Tree of the saved arrays' shapes and dtypes."""
        return self._manager.item_metadata(step).state.tree

    def _compare(self, wanted, step):
        saved = _flat(self._saved(step))
        lines = [f"missing in the checkpoint: {name} {_describe(wanted[name])}" for name in sorted(wanted.keys() - saved.keys())]
        lines += [f"unexpected in the checkpoint: {name} {_describe(saved[name])}" for name in sorted(saved.keys() - wanted.keys())]
        both = {name: (_describe(saved[name]), _describe(wanted[name])) for name in sorted(wanted.keys() & saved.keys())}
        lines += [f"{name}: saved {old}, wanted {new}" for name, (old, new) in both.items() if old != new]
        if lines:
            raise ValueError(f"step {step} in {self.directory} does not fit the state:\n  " + "\n  ".join(lines))


def restore_variables(directory, step="latest", ema=False):
    """Model variables from a folder of checkpoints that a run may still be writing: see `Checkpoints.restore_variables`."""
    with Checkpoints(directory, read_only=True) as checkpoints:
        return checkpoints.restore_variables(step, ema)


def _prepare(directory, **about):
    """Make the folder, clear it of what a killed process left, and record what it holds."""
    try:
        json.dumps(about)
    except (TypeError, ValueError) as error:
        raise TypeError(f"config must be JSON-able: {error}") from error
    if jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        for folder in directory.iterdir():
            if folder.name.isdigit() and _unfinished(folder):
                shutil.rmtree(folder)
        part = directory / f"{ABOUT}.part"
        part.write_text(json.dumps({**_read(directory), **about}, indent=1), encoding="utf-8")
        os.replace(part, directory / ABOUT)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("vmamba_jax.training.checkpointing")


def _read(directory):
    path = directory / ABOUT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _unfinished(folder):
    """A step folder that stands under its final name without all it should hold."""
    return folder.is_dir() and not ((folder / "_CHECKPOINT_METADATA").exists() and (folder / "state" / "_METADATA").exists())


def _tree(state):
    """The state as nested dicts, without a carry of None: runs begun before there was one go on."""
    tree = serialization.to_state_dict(state)
    return {name: tree[name] for name in tree if name != "carry" or tree[name] is not None}


def _abstract(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _flat(tree, prefix=""):
    """{"a/b": leaf} of nested dicts; empty dicts and None leave nothing."""
    if isinstance(tree, dict):
        return {name: leaf for key, child in tree.items() for name, leaf in _flat(child, f"{prefix}/{key}" if prefix else key).items()}
    return {} if tree is None else {prefix: tree}


def _describe(leaf):
    return f"{np.dtype(leaf.dtype)}{tuple(leaf.shape)}"
