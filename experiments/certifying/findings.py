"""What the study of certificates measures of one run besides its evaluation, saved as certify.json in the run's folder."""
import functools

import jax
import numpy as np

import vmamba_jax
from experiments.common import build, cli, results
from experiments.sweeps import study as sweeps
from vmamba_jax import attacks, data, evaluation, parallel
from vmamba_jax.core.images import unit_interval

FILE = "certify.json"


def evaluate(config, folder, *, progress=True, study):
    """Evaluate the last checkpoint as `experiments.evaluate` does, and write certify.json.

    certify.json holds "smoothing" ({sigma: {"accuracy", "abstention", "curve": rows of `evaluation.certified_accuracy`}}), "interval" ({eps: {"certified",
    "robust", "broken", "looseness"}}: certified accuracy, accuracy under AutoAttack on the first images, the number of these that are certified and broken,
    and the width of the logits' bounds over the sampled range), "clean" and "examples". Certified and attacked images are the first of the test split.

    Args:
        config, folder, progress: of the run.
        study: section of configs/certify.py.

    Raises:
        RunError: an image is certified and broken.
    """
    study = results.plain(study)
    sweeps.measured(config, folder, FILE, functools.partial(_measured, config, study), study, progress=progress)


def _measured(config, study, classifier, variables, train):
    """Content of certify.json."""
    del train
    mesh = parallel.data_mesh()
    fn, whole = vmamba_jax.logits_fn(classifier, parallel.replicate(variables, mesh)), build.source(config, "test")
    first = lambda n: data.Subset(whole, np.arange(min(n, len(whole))))
    key, options = jax.random.key(config.evaluation.seed), {"batch_size": 180, "mesh": mesh}
    content = {"clean": evaluation.accuracy(fn, first(study["images"]), **options)["accuracy"], "smoothing": {}, "interval": {}}
    for sigma in study["sigmas"]:
        found = evaluation.certify(fn, first(study["images"]), sigma=sigma, n0=study["n0"], n=study["n"], alpha=study["alpha"], key=key, batch_size=1050,
                                   mesh=mesh)
        content["smoothing"][str(sigma)] = {name: found[name] for name in ("accuracy", "abstention")} | {
            "curve": evaluation.certified_accuracy(found, study["l2_radii"])}
    shown = unit_interval(whole.gather(np.arange(study["looseness_images"]))[0])
    for eps in study["eps"]:
        found = evaluation.interval_accuracy(fn, first(study["images"]), eps=eps, **options)
        loose = evaluation.looseness(fn, shown, eps, key, samples=study["samples"])
        row = {"certified": found["certified_accuracy"], "looseness": float((loose["width"] / loose["sampled"]).mean()), "outside": int(loose["outside"])}
        if eps in study["attacked"]:
            row |= _attacked(fn, first(study["attacked_images"]), eps, found["certified"], study["autoattack"], key, mesh)
        if row["outside"] or row.get("broken"):
            raise cli.RunError(f"eps={eps}: {row['outside']} sampled logits outside their bounds, {row.get('broken', 0)} certified images broken by the "
                               "attack; expected none, as the bounds are sound")
        content["interval"][str(eps)] = row
    return content | {"examples": {"certified": study["images"], "attacked": study["attacked_images"]}}


def _attacked(fn, source, eps, certified, attack, key, mesh):
    """{"robust": accuracy under the attack, "broken": number of certified images that it breaks} of the first images."""
    found = evaluation.robust_accuracy(fn, source, attacks.create(**attack, eps=eps), key=key, batch_size=32, mesh=mesh)
    return {"robust": found["robust_accuracy"], "broken": len(evaluation.disagreements(certified[:len(found["robust"])], found["robust"]))}
