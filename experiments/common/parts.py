"""Parts of an evaluation, each in a file named by what its figures depend on: a part that is done is not measured again, whatever else changes."""
import time

from experiments.common import results

FOLDER = "parts"


class Parts:
    """The parts measured so far in a folder, and how long those of this evaluation took.

    A part is an attack, a radius of the curve, a corruption or the calibration. Its file parts/<name>-<digest>.json holds its identity, as an
    evaluation's does, so that a killed evaluation continues after its last part and a changed one measures only what changed.

    Args:
        workdir: the evaluation's folder.
        weights, data, model: as of `results.identity`, and the classifier's description.

    Attributes:
        reused: names of the parts that were not measured again.
        seconds: of all parts, also of those measured earlier.
    """

    def __init__(self, workdir, *, weights, data, model):
        self._workdir, self._common = workdir, {"weights": weights, "data": data, "model": model}
        self.reused, self.seconds = [], 0.0

    def identity(self, settings):
        """Everything that the figures of a part with these settings depend on."""
        return results.identity(weights=self._common["weights"], data=self._common["data"],
                                settings={"model": self._common["model"]} | settings)

    def measure(self, name, settings, function):
        """The JSON-able content of a part: the saved one of the same identity, or `function()`, which is then saved.

        Args:
            name: start of the file's name.
            settings: JSON-able dict of everything that the figures depend on besides weights, images and model.
            function: called without arguments.
        """
        identity = self.identity(settings)
        path = self._workdir / FOLDER / f"{name}-{results.digest(identity)}.json"
        found = results.saved(path, identity)
        if found is None:
            since = time.perf_counter()
            found = {"part": name, "content": function(), "seconds": round(time.perf_counter() - since, 2), "identity": identity}
            results.save_json(path, found)
        else:
            self.reused.append(name)
        self.seconds += found["seconds"]
        return found["content"]
