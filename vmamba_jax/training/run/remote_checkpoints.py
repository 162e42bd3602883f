"""Checkpoints of a run in an object store: every process writes its own parts in the background, and the manifest, written last, completes a step."""
import json
import threading
import time
import warnings

import jax
import numpy as np
from jax.experimental import multihost_utils

from vmamba_jax.core import checks
from vmamba_jax.core.run_folder import run_folder
from vmamba_jax.core.saved_steps import objects, step_folders
from vmamba_jax.core.saved_steps.reader import SavedSteps
from vmamba_jax.core.saved_steps.remote import RemoteSteps
from vmamba_jax.training.run import lock

PATIENCE, PAUSE = 1800.0, 0.2  # seconds that the first process waits for the parts of the others, and between two looks


class RemoteSaver(RemoteSteps):
    """What `training.Checkpoints` does at a URL; arguments are those of its constructor, except read_only, which is `RemoteSteps`.

    A step is complete once its manifest is written: a run killed before leaves objects that no reader lists, and its next start deletes them.
    """

    read_only = False

    def _open(self, directory, keep_latest, keep_best, best_metric, best_mode, config):
        self.directory, self._known, self._passed_over = run_folder(directory), {}, frozenset()
        self.best_metric, self.best_mode, self._keep = best_metric, best_mode, (keep_latest, keep_best)
        self._saving, self._thread, self._failure = None, None, None
        self._attempt = f"{int(multihost_utils.broadcast_one_to_all(_draw())):08x}" if jax.process_count() > 1 else f"{int(_draw()):08x}"
        about = {"best_metric": best_metric, "best_mode": best_mode, **({} if config is None else {"config": config})}
        if jax.process_index() == 0:
            self._prepare(about)
        _barrier()

    @property
    def steps(self):
        """Complete steps, ascending, a pending save included."""
        return sorted({*super().steps, *([] if self._saving is None else [self._saving])})

    def _prepare(self, about):
        """Set damaged steps aside, delete unfinished ones, and write about.json."""
        known = step_folders.read_about(self.directory)
        if found := self._damaged():
            for step, why in found.items():
                objects.set_aside(self.directory, step, why)
            told = f"{step_folders.listed(self.directory, found)}; set aside"
            known["damaged"] = [*known.get("damaged", ()), told]
            warnings.warn(told, RuntimeWarning, stacklevel=6)
        objects.clear(self.directory)
        step_folders.write_about(self.directory, {**known, **about})

    def _start(self, step, tree, metrics, extra):
        """Start writing a step; its arrays are copied to the host before this returns."""
        lock.check(self.directory.parent)
        found, about = objects.parts(tree, jax.process_index()), objects.shapes(tree)
        manifest = {"step": step, "attempt": self._attempt, "arrays": about, "extra": extra, "metrics": metrics}
        self._saving = step
        self._thread = threading.Thread(target=self._write, args=(manifest, found), name="checkpoint")
        self._thread.start()
        return True

    def _write(self, manifest, found):
        try:
            step, me, processes = manifest["step"], jax.process_index(), jax.process_count()
            entries = objects.write_parts(self.directory, step, self._attempt, me, found)
            if me:
                (self.directory / f"{step}/{self._attempt}/process-{me}.json").write_bytes(json.dumps(entries).encode())
                return
            for other in range(1, processes):
                entries += self._entries(self.directory / f"{step}/{self._attempt}/process-{other}.json", other)
            lock.check(self.directory.parent)
            objects.write_manifest(self.directory, manifest | {"parts": entries})
            self._known[step] = manifest | {"parts": entries}
            self._drop()
        except Exception as error:  # raised by `wait`
            self._failure = error

    def _entries(self, path, process):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                return json.loads(path.read_bytes())
            except FileNotFoundError:
                time.sleep(PAUSE)
        raise TimeoutError(f"process {process} did not write its part in {PATIENCE:.0f} s")

    def _drop(self):
        """Delete the steps that are neither among the newest nor among the best."""
        latest, best = self._keep
        listed = {step: keys for step, keys in objects.listing(self.directory).items() if objects.MANIFEST in keys}
        kept = set(sorted(listed)[-latest:])
        if self.best_metric is not None and best:
            sign = 1 if self.best_mode == "max" else -1
            ranked = {step: metrics[self.best_metric] for step in listed if (metrics := self._metrics(step)) is not None and self.best_metric in metrics}
            kept |= set(sorted(ranked, key=lambda step: (sign * ranked[step], step))[-best:])
        for step in listed.keys() - kept:
            damaged = [key for key in listed[step] if key.endswith(".damaged.json")]
            spared = {key.removesuffix(".damaged.json") for key in damaged}
            objects.delete(self.directory, step, [key for key in listed[step] if key not in damaged and key.partition("/")[0] not in spared])
            self._known.pop(step, None)

    def _join(self):
        """Wait for the step being saved; raises what its thread raised."""
        if self._saving is None:
            return
        self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        self._saving = None
        _barrier()

    def _set_aside(self, damage, instead, before):
        text = SavedSteps._set_aside(self, damage, instead, before)
        if self.read_only:
            return text
        if jax.process_index() == 0:
            for step, why in damage.items():
                objects.set_aside(self.directory, step, why)
            step_folders.record_damage(self.directory, text)
        _barrier()
        return text


def check_options(keep_latest, keep_best, best_mode):
    """The checks of the constructor's arguments, for local and remote folders."""
    checks.count("keep_latest", keep_latest, 1)
    checks.count("keep_best", keep_best, 0)
    checks.choice("best_mode", best_mode, ("max", "min"))


def _draw():
    return np.random.default_rng().integers(0, 1 << 31, dtype=np.uint32)


def _barrier():
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("vmamba_jax.training.remote_checkpoints")
