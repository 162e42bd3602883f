"""What the study of Adaptive Scaling measures of one run besides its evaluation, saved as ads.json in the run's folder."""
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import vmamba_jax
from experiments.common import build, cli, results
from experiments.common import evaluation as common
from vmamba_jax import analysis, attacks, data, evaluation, parallel
from vmamba_jax.checkpoints import open_weights
from vmamba_jax.core.images import unit_interval
from vmamba_jax.models.sequence import SequenceClassifier

FILE = "ads.json"
CHECKPOINTS = {"best": "best", "last": "latest"}
FEATURES = 128  # images whose features are compared, at most


def evaluate(config, folder, *, progress=True, study):
    """Evaluate the best checkpoint as `experiments.evaluate` does, and write ads.json: best and last checkpoint, the training images, error rates.

    ads.json holds "best" and "last" ({"step", "clean", "pgd", "autoattack", "train_clean", "train_pgd"}, accuracies; the best checkpoint has the highest
    validation accuracy that config.validation.select names), and of the last one "rates" ({"components", "mse_before", ...} on test images, see
    `analysis.change_rates`) and "kernels" ([{"worst", "energy"}, ...], one for each S4 or DSS layer).

    Args:
        config: of the run.
        folder: of the run.
        progress: whether to draw the progress bar.
        study: section of configs/ads_study.py: {"images", "train_images", "autoattack", "batch_size"}, the batch size being that of AutoAttack.
    """
    folder, study = pathlib.Path(folder), results.plain(study)
    done = common.run(config, folder, "best", progress=progress)
    steps = {name: open_weights(folder, checkpoint=checkpoint).step for name, checkpoint in CHECKPOINTS.items()}
    classifier, variables, train = build.trained(config, folder)
    identity = results.identity(weights=parallel.fingerprint(variables), data=train.fingerprint, settings={
        "evaluation": results.plain(config.evaluation), "model": build.description(classifier), "study": study, "steps": steps})
    if results.saved(folder / FILE, identity, cli.report) is not None:
        return
    since = time.perf_counter()
    measure = _Measure(config, classifier, train, study)
    content = {"identity": identity, "attack": done["attacks"]["pgd"]["label"], "last": measure.accuracies(variables) | {"step": steps["last"]}}
    if steps["best"] == steps["last"]:
        content["best"] = content["last"]
    else:
        content["best"] = measure.accuracies(build.trained(config, folder, "best")[1]) | {"step": steps["best"]}
    content["rates"], content["kernels"] = measure.rates(variables), kernels(classifier, variables, train)
    content |= {"autoattack": build.attack_label(measure.autoattack), "examples": measure.examples, "seconds": round(time.perf_counter() - since, 1)}
    results.save_json(folder / FILE, content)


class _Measure:
    """The sets and attacks that every checkpoint of a run is measured on, and with.

    PGD is measured on the test images of config.evaluation, AutoAttack on the first ones of the whole test split, and the generalization gap on the
    first training images, without augmentation.
    """

    def __init__(self, config, classifier, train, study):
        whole = build.source(config, "test")
        first = lambda source, n: data.Subset(source, np.arange(min(n or len(source), len(source))))
        self.classifier, self.sets = classifier, {"test": build.source(config, "test", config.evaluation.limit), "first": first(whole, study["images"]),
                                                  "train": first(train, study["train_images"])}
        self.pgd = build.attack(config.evaluation.attacks.pgd, "config.evaluation.attacks.pgd")
        with cli.checking("config.study.autoattack"):
            self.autoattack = attacks.create(**study["autoattack"])
        self.rows = study["batch_size"]  # AutoAttack gathers the images that are still robust: with small batches, nearly always into full ones
        self.key, self.loop = jax.random.key(config.evaluation.seed), {"batch_size": config.evaluation.batch_size, "mesh": parallel.data_mesh()}
        self.examples = {name: len(source) for name, source in self.sets.items()}

    def accuracies(self, variables):
        """{"clean", "pgd", "autoattack", "train_clean", "train_pgd"}: accuracies in [0, 1]."""
        fn = vmamba_jax.logits_fn(self.classifier, parallel.replicate(variables, self.loop["mesh"]))
        attacked = lambda name, attack, **loop: evaluation.robust_accuracy(fn, self.sets[name], attack, key=self.key, **(self.loop | loop))
        test, train, first = attacked("test", self.pgd), attacked("train", self.pgd), attacked("first", self.autoattack, batch_size=self.rows)
        return {"clean": test["accuracy"], "pgd": test["robust_accuracy"], "autoattack": first["robust_accuracy"], "train_clean": train["accuracy"],
                "train_pgd": train["robust_accuracy"]}

    def rates(self, variables):
        """The arrays of `analysis.change_rates` as lists, on up to `FEATURES` test images."""
        images, labels = self.sets["test"].gather(np.arange(min(FEATURES, len(self.sets["test"]))))
        found = analysis.change_rates(self.classifier, variables, (unit_interval(images), labels), self.pgd, key=self.key, **self.loop)
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}


def kernels(classifier, variables, source):
    """[{"worst", "energy"}, ...] of every S4 or DSS layer, means over the channels: sum |K|, the exact worst-case error of an input error of 1, and
    sqrt(sum K^2), the gain of white noise. [] for another model."""
    if not isinstance(classifier.model, SequenceClassifier) or classifier.model.layer not in ("s4", "dss"):
        return []
    found = analysis.layer_kernels(classifier.model, variables, jnp.zeros((1, *source.image_shape)))
    return [{"worst": float(analysis.worst_case_error(kernel, 1.0)[:, -1].mean()), "energy": float(jnp.sqrt((kernel**2).sum(-1)).mean())}
            for kernel in found.values()]
