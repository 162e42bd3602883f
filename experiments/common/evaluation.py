"""The evaluation of one model in a folder: accuracy, attacks, the curve over radii. `experiments.evaluate` is its command line."""
import time

import jax
import numpy as np

import vmamba_jax
from configs import base
from experiments.common import build, classes, cli, limits, results
from vmamba_jax import attacks, checkpoints, evaluation, parallel, training
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import keys_at
from vmamba_jax.evaluation import staged
from vmamba_jax.evaluation.loop import Loop
from vmamba_jax.evaluation.sets import enter

SIGNS = 64  # images that the signs of gradient masking are measured on, at most


def run(config, workdir, checkpoint="best", *, progress=True, command=""):
    """Evaluate as config.evaluation says, and write evaluation.json and examples.npz.

    A saved evaluation.json of the same identity (versions, weights, images, settings) is returned without measuring anything; one of another
    identity is replaced, and a line says what differs.

    Args:
        config: ConfigDict of a run; missing keys get the neutral values of `configs.base.run`.
        workdir: a trained run's folder, or the folder for the results of config.weights.
        checkpoint: "best", "latest" or a step; not used with config.weights.
        progress: whether to draw the progress bar.
        command: shell line to record, which the page shows; "": none.

    Returns:
        The content of evaluation.json.

    Raises:
        ConfigError: a config or checkpoint that cannot be evaluated.
    """
    with cli.checking():
        config = base.complete(config)
    limits.check_run(config)
    workdir, section = cli.folder(workdir), config.evaluation
    named, attack, radii = _attacks(section)
    variables, origin = _variables(config, workdir, checkpoint)
    source = build.source(config, section.split, section.limit)
    if not config.weights:
        classes.check_draw(config, workdir, section.split)
        source = classes.trained_classes(config, source, workdir)
    classifier = build.classifier(config, source)
    if config.weights:
        classifier = classes.over_classes(classifier, source, "classes" in config.data.options)

    identity = results.identity(weights=parallel.fingerprint(variables), data=source.fingerprint, settings={
        "evaluation": results.plain(section), "model": build.description(classifier), "checkpoint": origin})
    if (done := results.saved(workdir / "evaluation.json", identity, cli.report)) is not None:
        return done

    since, key, mesh = time.perf_counter(), jax.random.key(section.seed), parallel.data_mesh()
    logits_fn = vmamba_jax.logits_fn(classifier, parallel.replicate(variables, mesh))
    for name, each in named.items():
        if hasattr(each, "stages"):
            with cli.checking("config.evaluation.autoattack" if name == "autoattack" else f"config.evaluation.attacks.{name}"):
                staged.check(each, enter(logits_fn, source, Loop(batch_size=section.batch_size, mesh=mesh)))
    measured = len(named) + len([radius for radius in radii if radius not in (0.0, attack.eps)])
    with cli.bar("evaluation", measured * len(source), progress) as bar:
        def measure(attack, label, **options):
            before = bar.tasks[0].completed

            def advance(done, n, figures):
                stage = f", {figures['stage']}: {figures['robust']} still robust" if "stage" in figures else ""
                bar.update(0, completed=before + done, description=label + stage)
            result = evaluation.robust_accuracy(logits_fn, source, attack, key=key, batch_size=section.batch_size, mesh=mesh, progress=advance, **options)
            row = evaluation.summary(result) | {"label": build.attack_label(attack), "norm": attack.norm, "eps": attack.eps}
            return row | _details(result, attack, logits_fn, source, key, section.batch_size) if "stages" in result else row

        states = {name: workdir / "state" / f"{name}-{results.digest(identity)}.npz" for name, each in named.items() if hasattr(each, "stages")}
        table = {name: measure(each, build.attack_label(each), **({"state": states[name]} if name in states else {})) for name, each in named.items()}
        clean = next(iter(table.values()))
        known = {0.0: clean["accuracy"], attack.eps: table[section.curve.attack]["robust_accuracy"]}
        curve = {radius: known[radius] if radius in known else measure(build.resized(attack, radius), f"radius {radius:.3g}")["robust_accuracy"]
                 for radius in radii}

    content = {
        "split": source.split, "examples": len(source), "accuracy": clean["accuracy"], "accuracy_interval": clean["accuracy_interval"],
        "attacks": table, "seed": section.seed, "checkpoint": origin, "identity": identity, "command": command,
        **results.provenance(source),
        "curve": {"attack": section.curve.attack, "label": build.attack_label(attack), "norm": attack.norm, "radii": list(curve),
                  "robust_accuracy": list(curve.values())},
        "seconds": round(time.perf_counter() - since, 1),
    }
    results.save_arrays(workdir / "examples.npz", **_examples(logits_fn, source, attack, key, section.examples))
    results.save_json(workdir / "evaluation.json", content)
    for state in states.values() if jax.process_index() == 0 else ():
        state.unlink(missing_ok=True)
    return content


def _attacks(section):
    """({name: attack}, the curve's attack, its radii ascending) of the evaluation section."""
    named = {name: build.attack(options, f"config.evaluation.attacks.{name}") for name, options in section.attacks.items()}
    if section.curve.attack not in named:
        raise cli.ConfigError(f"config.evaluation.curve.attack={section.curve.attack!r}: expected one of {', '.join(named)}")
    attack, radii = named[section.curve.attack], sorted({float(radius) for radius in section.curve.radii})
    if not attack.eps:
        raise cli.ConfigError(f"config.evaluation.attacks.{section.curve.attack}.eps={attack.eps}: expected a number above 0, as the curve uses this attack")
    if not radii or radii[0] < 0:
        raise cli.ConfigError(f"config.evaluation.curve.radii={tuple(section.curve.radii)}: expected at least one radius, none below 0")
    if section.autoattack:
        with cli.checking("config.evaluation.autoattack"):
            named["autoattack"] = attacks.create("autoattack", eps=attack.eps, norm=attack.norm, version=section.autoattack)
    return named, attack, radii


def _details(result, attack, logits_fn, source, key, batch_size):
    """Extra results of a multi-stage attack: the stage that broke each image, and the signs of gradient masking."""
    images, labels = source.gather(np.arange(min(len(source), batch_size, SIGNS)))
    found = evaluation.gradient_masking_signs(logits_fn, unit_interval(images), labels, eps=attack.eps, norm=attack.norm, key=key, result=result)
    return {"warnings": found, "images": evaluation.per_image(result)}


def _variables(config, workdir, checkpoint):
    """(weights to evaluate, JSON-able facts about their origin)."""
    if config.weights:
        with cli.checking("config.weights"):
            variables, metadata = checkpoints.load_variables(config.weights)
        return variables, {"weights": str(config.weights), "metadata": metadata}
    with cli.checking("checkpoint"), training.Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        while True:
            step = saved.find(checkpoint)
            try:
                return saved.restore_variables(step, ema=bool(config.ema_decay)), {"which": str(checkpoint), "step": step}
            except FileNotFoundError:  # the run that still trains has replaced it meanwhile
                if checkpoint == step:
                    raise


def _examples(logits_fn, source, attack, key, count):
    """The first image of each of the first `count` classes, clean and under the evaluation's attack, with the model's predictions."""
    _, first = np.unique(source.labels, return_index=True)
    index = first[:count]
    images, labels = source.gather(index)
    images = unit_interval(images)
    adversarial, clean_predictions, adversarial_predictions = jax.device_get(_predictions(logits_fn, attack, images, labels, key, index))
    return {"index": index, "clean": images, "adversarial": adversarial, "labels": labels, "clean_predictions": clean_predictions,
            "adversarial_predictions": adversarial_predictions, "classes": np.asarray(source.classes), "attack": build.attack_label(attack)}


@jax.jit
def _predictions(logits_fn, attack, images, labels, key, index):
    adversarial = attack(logits_fn, images, labels, keys_at(key, index))  # the same images as in the evaluation
    return adversarial, logits_fn(images).argmax(-1), logits_fn(adversarial).argmax(-1)
