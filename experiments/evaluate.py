"""Evaluate a trained run, or released weights: clean accuracy, accuracy under attacks, accuracy against the size of the perturbation.

    python -m experiments.evaluate --workdir runs/digits
    python -m experiments.evaluate --workdir runs/digits --config.evaluation.attacks.pgd.restarts=20
    python -m experiments.evaluate --workdir runs/tiny --config configs/evaluate_weights.py:model=vmamba_tiny --config.weights=DIR

Without --config the run's own is taken. `--config.evaluation.autoattack=standard` adds AutoAttack, which keeps its state after every batch: the same
command goes on where a killed one was. The folder gets evaluation.json, examples.npz (some images, clean and attacked) and report.html.
--checkpoint=best (on the validation split; the default), latest, or a step.
"""
import hashlib
import json
import pathlib
import time

import jax
import numpy as np
from absl import flags

import vmamba_jax
from experiments.common import build, cli, results
from vmamba_jax import attacks, checkpoints, evaluation, parallel, reports, training
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import keys_at

SAVED = pathlib.Path(__file__).parent.parent / "configs" / "saved.py"


def run(config, workdir, checkpoint="best", *, progress=True):
    """Evaluate as config.evaluation says. Returns the content of evaluation.json; what is there already for the same settings stays.

    workdir: a trained run's folder, or where the results of config.weights go. checkpoint: "best", "latest" or a step.
    """
    workdir, section = cli.folder(workdir), config.evaluation
    named = {name: build.attack(options, f"config.evaluation.attacks.{name}") for name, options in section.attacks.items()}
    if section.curve.attack not in named:
        raise cli.ConfigError(f"config.evaluation.curve.attack={section.curve.attack!r}: expected one of {', '.join(named)}")
    attack, radii = named[section.curve.attack], sorted({float(radius) for radius in section.curve.radii})
    if version := section.get("autoattack"):
        with cli.checking("config.evaluation.autoattack"):
            named["autoattack"] = attacks.create("autoattack", eps=attack.eps, norm=attack.norm, version=version)
    if not attack.eps or not radii or radii[0] < 0:
        raise cli.ConfigError(f"config.evaluation.curve: expected radii >= 0 and an attack of eps > 0, got {radii} and eps={attack.eps}")
    variables, origin = _variables(config, workdir, checkpoint)
    source = build.source(config, section.split, section.limit)
    classifier = build.classifier(config, source)

    inputs = {"evaluation": json.loads(section.to_json()), "checkpoint": origin, "fingerprint": source.fingerprint}
    done = results.load_json(workdir / "evaluation.json")
    if done is not None and done.get("inputs") == inputs:
        return done

    since, key, mesh = time.perf_counter(), jax.random.key(section.seed), parallel.data_mesh()
    logits_fn = vmamba_jax.logits_fn(classifier, parallel.replicate(variables, mesh))
    measured = len(named) + len([radius for radius in radii if radius not in (0.0, attack.eps)])
    with cli.bar("evaluation", measured * len(source), progress) as bar:
        def measure(attack, label, **options):
            before = bar.tasks[0].completed

            def advance(done, n, figures):
                stage = f", {figures['stage']}: {figures['standing']} standing" if "stage" in figures else ""
                bar.update(0, completed=before + done, description=label + stage)
            result = evaluation.robust_accuracy(logits_fn, source, attack, key=key, batch_size=section.batch_size, mesh=mesh, progress=advance, **options)
            row = evaluation.summary(result) | {"label": build.attack_label(attack), "norm": attack.norm, "eps": attack.eps}
            return row | _details(result, attack, logits_fn, source, key, section.batch_size) if "stages" in result else row

        states = {name: workdir / "state" / f"{name}-{_digest(inputs)}.npz" for name, each in named.items() if hasattr(each, "stages")}
        table = {name: measure(each, build.attack_label(each), **({"state": states[name]} if name in states else {})) for name, each in named.items()}
        clean = next(iter(table.values()))
        known = {0.0: clean["accuracy"], attack.eps: table[section.curve.attack]["robust_accuracy"]}
        curve = {radius: known[radius] if radius in known else measure(build.resized(attack, radius), f"radius {radius:.3g}")["robust_accuracy"]
                 for radius in radii}

    content = {
        "split": source.split, "examples": len(source), "accuracy": clean["accuracy"], "accuracy_interval": clean["accuracy_interval"],
        "attacks": table, "seed": section.seed, "checkpoint": origin, "inputs": inputs, **results.environment(source),
        "curve": {"attack": section.curve.attack, "label": build.attack_label(attack), "norm": attack.norm, "radii": list(curve), "robust_accuracy": list(curve.values())},
        "seconds": round(time.perf_counter() - since, 1),
    }
    results.save_arrays(workdir / "examples.npz", **_examples(logits_fn, source, attack, key, section.examples))
    results.save_json(workdir / "evaluation.json", content)
    for state in states.values() if jax.process_index() == 0 else ():
        state.unlink(missing_ok=True)
    return content


def _digest(inputs):
    """A short name for what a state belongs to, so that another config finds no state of this one."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


def _details(result, attack, logits_fn, source, key, batch_size):
    """What an attack of several stages tells besides: what broke each image, and signs that the figure is not to be trusted."""
    images, labels = source.gather(np.arange(min(len(source), batch_size, 64)))
    found = evaluation.suspicions(logits_fn, unit_interval(images), labels, eps=attack.eps, norm=attack.norm,
                                  key=key, result=result)
    return {"warnings": found, "images": evaluation.per_image(result)}


def _variables(config, workdir, checkpoint):
    """The weights to evaluate, and where they are from."""
    if config.get("weights"):
        with cli.checking("config.weights"):
            variables, metadata = checkpoints.load_variables(config.weights)
        return variables, {"weights": str(config.weights), "metadata": metadata}
    with cli.checking("checkpoint"), training.Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        step = saved.find(checkpoint)
        return saved.restore_variables(step, ema=bool(config.get("ema_decay"))), {"which": str(checkpoint), "step": step}


def _examples(logits_fn, source, attack, key, count):
    """The first image of each class, as many classes as asked: clean, attacked as in the evaluation, and what the model says to both."""
    _, first = np.unique(source.labels, return_index=True)
    index = first[:count]
    images, labels = source.gather(index)
    images = unit_interval(images)
    adversarial, clean_predictions, adversarial_predictions = jax.device_get(_look(logits_fn, attack, images, labels, key, index))
    return {"index": index, "clean": images, "adversarial": adversarial, "labels": labels, "clean_predictions": clean_predictions,
            "adversarial_predictions": adversarial_predictions, "classes": np.asarray(source.classes), "attack": build.attack_label(attack)}


@jax.jit
def _look(logits_fn, attack, images, labels, key, index):
    adversarial = attack(logits_fn, images, labels, keys_at(key, index))  # the evaluation's own images
    return adversarial, logits_fn(images).argmax(-1), logits_fn(adversarial).argmax(-1)


def _own_config(argv):
    """Without --config, the one saved in the workdir."""
    workdir = cli.argument(argv, "workdir")
    if cli.argument(argv, "config") is not None or workdir is None:
        return argv
    saved = pathlib.Path(workdir) / "config.json"
    if not saved.is_file():
        raise cli.ConfigError(f"{workdir} holds no config.json: train there first, or give --config")
    return [f"--config={SAVED}:{saved}", *argv]


def _flags():
    flags.DEFINE_string("checkpoint", "best", "best, latest or a step")
    return ("checkpoint",)


def main(config, workdir, checkpoint):
    run(config, workdir, int(checkpoint) if checkpoint.isdigit() else checkpoint)
    if jax.process_index() != 0:
        return  # the first process reports, of what it alone has written
    finished = reports.read_run(workdir)
    page = reports.write(finished.folder / "report.html", [finished], title=f"{config.model.name} on {config.data.name}",
                         commands=[f"python -m experiments.evaluate --workdir {workdir}"])
    warnings = [f"warning: {result['label']}: {warning['meaning']} ({warning['sign']}: {warning['measured']})"
                for result in finished.evaluation["attacks"].values() for warning in result.get("warnings", ())]
    print("\n".join([reports.tables.text([finished]), *warnings, f"report: {page}"]))


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags, complete=_own_config)
