"""The run that the study of dense tasks measures, and the files that it saves of it."""
import dataclasses
import pathlib
import time
from typing import Any

from experiments.common import build, cli, results
from vmamba_jax import parallel

FILE, IMAGES = "dense.json", "dense.npz"


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained run and the set that it is measured on.

    Attributes:
        folder: of the run.
        study: the sweep's probes as plain values.
        identity: of weights, data and settings, by which saved results are recognized.
        classifier, variables: the model with the weights of its best checkpoint.
        train, test: sources.
    """
    folder: pathlib.Path
    study: dict
    identity: dict
    classifier: Any
    variables: Any
    train: Any
    test: Any


def subject(config, folder, study, without=()):
    """The `Subject` of a run, or None if its dense.json has the results of these weights, data and settings.

    Args:
        config: of the run.
        folder: the run's.
        study: of the sweep's config, as `configs.dense.probes` makes it.
        without: names of probes that models of this kind do not have.
    """
    folder, study = pathlib.Path(folder), {name: value for name, value in results.plain(study).items() if name not in without}
    classifier, variables, train = build.trained(config, folder, "best")
    test = build.source(config, "test", config.evaluation.limit)
    identity = results.identity(weights=parallel.fingerprint(variables), data=test.fingerprint, settings={
        "study": study, "seed": config.evaluation.seed, "model": build.description(classifier)})
    if results.saved(folder / FILE, identity, cli.report) is not None:
        return None
    return Subject(folder, study, identity, classifier, variables, train, test)


def save(subject, content, arrays, since, said):
    """Write dense.npz and dense.json.

    Args:
        subject: `Subject`.
        content: of dense.json, without time and provenance.
        arrays: of dense.npz.
        since: `time.perf_counter()` at the start.
        said: the result in words, to print; False: nothing is printed.
    """
    folder = subject.folder
    results.save_arrays(folder / IMAGES, **arrays)
    content |= {"seconds": round(time.perf_counter() - since, 1)} | results.provenance(subject.test)
    results.save_json(folder / FILE, content)
    if said:
        cli.report(f"measured  {folder.parent.name}/{folder.name}: {said} in {content['seconds']:.0f} s")
