"""The reader of a run's saved steps in an object store, see `objects`; it verifies checksums and needs no template; a run may save meanwhile."""
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vmamba_jax.core.run_folder import run_folder
from vmamba_jax.core.saved_steps import objects, step_folders
from vmamba_jax.core.saved_steps.reader import DamagedCheckpoint, SavedSteps, reading


class RemoteSteps(SavedSteps):
    """`SavedSteps` at a URL; damaged steps are passed over.

    Args:
        directory: gs:// or s3:// URL of the steps.
        best_metric: metric that ranks the steps; None: the recorded one.
    """

    def __init__(self, directory, best_metric=None):
        self.directory, self._known, self._passed_over = run_folder(directory), {}, frozenset()
        if not self.directory.is_dir():
            raise FileNotFoundError(f"directory={str(self.directory)!r}: expected a folder of checkpoints, which does not exist")
        about = step_folders.read_about(self.directory)
        self.best_metric, self.best_mode = best_metric or about.get("best_metric"), about.get("best_mode", "max")
        self._retrying(self._pass_over)

    def extra(self, step="latest"):
        return self._manifest(self.find(step))["extra"]

    @property
    def steps(self):
        return [step for step, keys in objects.listing(self.directory).items() if objects.MANIFEST in keys and step not in self._passed_over]

    best_step = SavedSteps.best_step  # not that of `training.Checkpoints`, which asks Orbax

    def close(self):
        pass

    def _manifest(self, step):
        """A step's manifest; one that was read is not read again, as a step is written once."""
        if step not in self._known:
            with reading(step, "its manifest"):
                self._known[step] = objects.read_manifest(self.directory, step)
        return self._known[step]

    def _metrics(self, step):
        return self._manifest(step)["metrics"]

    def _saved(self, step):
        about = self._manifest(step)["arrays"]
        return traverse_util.unflatten_dict({name: traverse_util.empty_node if each is None else jax.ShapeDtypeStruct(tuple(each["shape"]), jnp.dtype(each["dtype"]))
                                             for name, each in about.items()}, sep="/")

    def _load(self, step, target):
        self._known.pop(step, None)
        manifest, filled = self._manifest(step), {}
        for name, leaf in traverse_util.flatten_dict(target, sep="/", keep_empty_nodes=True).items():
            if leaf is None or leaf is traverse_util.empty_node:
                filled[name] = leaf
                continue
            try:
                array = objects.read_array(self.directory, manifest, name)
            except objects.Incomplete as error:
                raise DamagedCheckpoint(f"step {step}: {error}") from error
            sharding = getattr(leaf, "sharding", None)
            filled[name] = array if sharding is None else jax.make_array_from_callback(array.shape, sharding, lambda index, array=array: array[index])
        state = traverse_util.unflatten_dict(filled, sep="/")
        if (holds := int(np.asarray(state["step"]))) != step:
            raise DamagedCheckpoint(f"step {step}: its folder holds step {holds}: expected folders under the names they were saved with")
        return state

    def _listing(self):
        return objects.listing(self.directory)

    def _damaged(self):
        """{step: why} of the steps whose manifest or objects cannot be used."""
        found = {}
        for step, keys in objects.listing(self.directory).items():
            if objects.MANIFEST not in keys:
                continue
            try:
                manifest = objects.read_manifest(self.directory, step)
            except (objects.Incomplete, FileNotFoundError) as error:
                found[step] = str(error)
                continue
            if lost := sorted({f"{manifest['attempt']}/{part['file']}" for part in manifest["parts"]} - set(keys)):
                found[step] = f"its file {lost[0]} is missing"
            else:
                self._known[step] = manifest
        return found

    def _pass_over(self):
        before = self._listing()
        found = self._damaged()
        if found:
            if not self._is_still(before):
                raise DamagedCheckpoint(step_folders.listed(self.directory, found))
            warnings.warn(f"{step_folders.listed(self.directory, found)}; passed over", RuntimeWarning, stacklevel=6)
        self._passed_over = frozenset(found)
