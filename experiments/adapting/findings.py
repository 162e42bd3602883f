"""What the study of adaptation measures of one run besides its evaluation, saved as adapt.json in the run's folder."""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import build, cli, results
from experiments.sweeps import study as sweeps
from vmamba_jax import adaptation, attacks
from vmamba_jax.core.images import unit_interval

FILE = "adapt.json"
ALL_NORMS = ("tent", "eata", "sar")  # methods that adapt norms, which are layer norms in one group


def evaluate(config, folder, *, progress=True, study):
    """Evaluate the last checkpoint as `experiments.evaluate` does, and write adapt.json.

    adapt.json holds "streams" ({setting: {method: {corruption: accuracy}}}), "attacked" ({method: {"clean", "before", "through", "known"}}: accuracy after
    adaptation to clean batches, to batches attacked on the model as it was, to batches attacked through the adaptation, and to the worse of the two for
    each batch, which an attacker who knows the method can choose) and "poisoned" ({method: {"without",
    "with"}}: accuracy on the last images of each batch whose first images are clean, or poisoned).

    Args:
        config, folder, progress: of the run.
        study: section of configs/adaptation.py.
    """
    study = results.plain(study)
    sweeps.measured(config, folder, FILE, functools.partial(_measured, config, study), study, progress=progress)


def _measured(config, study, classifier, variables, train):
    """Content of adapt.json."""
    source = build.source(config, study["split"])
    starts = {name: start(classifier, variables, train, section, study, name) for name, section in study["methods"].items()}
    content = {"streams": {}, "attacked": {}, "poisoned": {}}
    for setting in study["settings"]:
        content["streams"][setting] = {name: _stream(method, init, variables, source, study, setting) for name, (method, init) in starts.items()}
    for name in study["attacked"]:
        content["attacked"][name], content["poisoned"][name] = attacked(*starts[name], variables, source, study)
    return content


def start(classifier, variables, train, section, study, name):
    """(method, variables -> state) of a section of the config; one with a fisher_weight gets the Fisher information of the first training images."""
    options = dict(section)
    kind = options.pop("name")
    if kind in ALL_NORMS and "batch_stats" not in variables:
        options["norms"] = "all"
    with cli.checking(f"config.study.methods.{name}"):
        method = adaptation.METHODS[kind](classifier, **options)
    if not section.get("fisher_weight"):
        return method, method.init
    images = jnp.asarray(unit_interval(train.gather(np.arange(study["fisher_images"]))[0]))
    return method, functools.partial(method.init, fisher=jax.jit(method.fisher)(variables, images))


def _stream(method, init, variables, source, study, setting):
    rows = adaptation.stream_accuracy(method, variables, source, key=jax.random.key(0), corruptions=study["corruptions"], severities=(study["severity"],),
                                      setting=setting, batch_size=study["batch_size"], init=init)
    return {row["corruption"]: row["accuracy"] for row in rows}


def attacked(method, init, variables, source, study):
    """({"clean", "before", "through", "known"}, {"without", "with"}) of a method on whole batches of the images, each from the start."""
    state, size, found = init(variables), study["batch_size"], []
    measure = _attacks(method, study["poisoned"], study["eps"], study["poison_eps"], study["steps"])
    for i in range(len(source) // size):
        images, labels = source.gather(np.arange(i * size, (i + 1) * size))
        found.append(jax.device_get(measure(state, jnp.asarray(unit_interval(images)), jnp.asarray(labels), jax.random.key(i))))
    means = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
    return tuple({name: means[name] for name in names} for names in (("clean", "before", "through", "known"), ("without", "with")))


@functools.lru_cache(maxsize=32)
def _attacks(method, count, eps, poison_eps, steps):
    """One jitted function (state, images, labels, key) -> accuracies for equal methods, which the seeds share."""
    pgd = attacks.pgd(eps, steps=steps, step_size=2.5 * eps / steps)

    @jax.jit
    def measure(state, images, labels, key):
        after, fixed = adaptation.adapted_logits(method, state), adaptation.adapted_logits(adaptation.none(method.model), state)

        def correct(x):
            logits = after(x)
            return (logits.argmax(-1) == labels) & jnp.isfinite(logits).all(-1)

        poisoned = adaptation.poison(method, state, images, labels, count, eps=poison_eps, steps=steps)
        clean, before, through = correct(images), *(correct(pgd(fn, images, labels, key)).mean() for fn in (fixed, after))
        return {"clean": clean.mean(), "before": before, "through": through, "known": jnp.minimum(before, through),
                "without": clean[count:].mean(), "with": correct(poisoned)[count:].mean()}

    return measure
