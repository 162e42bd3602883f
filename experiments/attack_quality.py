"""Compare attacks at equal numbers of passes by their optimality (AttackBench), over a budget, on models trained here from several seeds.

    python -m experiments.attack_quality --config configs/attack_quality.py --workdir runs/attack_quality

The models are the plain networks of experiments/small_nets.py, or of the catalog, in which case the folder gets models/LABEL-SEED, runs that are not
trained again. It also gets parts/ (a file per model, attack and budget, which is not measured again),
attack_quality.json, .md and .html; --page draws the last two again from the JSON alone.
"""
import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import vmamba_jax
from configs import base, digits
from experiments import small_nets
from experiments.common import build, cli, environment, results, training
from experiments.common.parts import Parts
from vmamba_jax import attacks, checkpoints, data, models, parallel, reports
from vmamba_jax.attacks import losses
from vmamba_jax.core.images import unit_interval
from vmamba_jax.evaluation import optimality

TARGETS = 4  # classes of the targeted attacks
EPOCHS = 60  # of a plain network
CANDIDATES = 9  # gradients of MALT's ranking on ten classes


def candidates(budget):
    """{name: function of the radius -> attack of at most `budget` gradient passes per image}; a forward pass alone counts as half of one, and the pass of
    the clean images, which every search begins with, does not count.

    APGD and PMA evaluate one iterate more than they take steps; each run of PMA has its own iterates, as each target of targeted APGD and FAB; a step of
    FAB takes one gradient pass and one forward pass.
    """
    targeted = {"loss": "dlr_targeted", "n_targets": TARGETS}
    made = {
        "FGSM": lambda eps: attacks.fgsm(eps),
        "PGD, cross-entropy": lambda eps: attacks.pgd(eps, budget),
        "APGD, cross-entropy": lambda eps: attacks.apgd(eps, budget - 1),
        "APGD, DLR": lambda eps: attacks.apgd(eps, budget - 1, loss="dlr"),
        "APGD, probability margin": lambda eps: attacks.apgd(eps, budget - 1, loss="probability_margin"),
        "APGD-T": lambda eps: attacks.apgd(eps, budget // TARGETS - 1, **targeted),
        "APGD-T, MALT": lambda eps: attacks.apgd(eps, (budget - CANDIDATES) // TARGETS - 1, targets="malt", **targeted),
        "PMA": lambda eps: attacks.pma(eps, budget // 2 - 1),
        "FAB-T": lambda eps: attacks.fab(eps, int(budget / TARGETS / 1.5), n_targets=TARGETS, keep="first_hit"),
        "Square": lambda eps: attacks.square(eps, queries=2 * budget - 1),
    }
    if budget < 2 * TARGETS + CANDIDATES:
        raise cli.ConfigError(f"config.budgets: expected at least {2 * TARGETS + CANDIDATES} passes, which the targeted attacks need, not {budget}")
    return made


def check(config):
    """Check a config of `configs.base.attack_quality`; a ConfigError for the first value that is not one."""
    radii = list(config.radii)
    if not radii or any(not low < high for low, high in zip([0.0, *radii], radii, strict=False)):
        raise cli.ConfigError(f"config.radii={config.radii!r}: expected ascending numbers > 0")
    if config.eps not in radii:
        raise cli.ConfigError(f"config.eps={config.eps!r}: expected one of config.radii={config.radii!r}")
    for field in ("models", "seeds", "budgets"):
        if not config[field]:
            raise cli.ConfigError(f"config.{field}={config[field]!r}: expected at least one")
    for field in ("limit", "epochs"):
        if not isinstance(config[field], int) or config[field] < 0:
            raise cli.ConfigError(f"config.{field}={config[field]!r}: expected an integer >= 0")
    for budget in config.budgets:
        candidates(budget)
    for label, section in config.models.items():
        if section.name not in small_nets.NETS:
            with cli.checking(f"config.models.{label}"):
                models.entry(section.name)


def run(config, workdir, *, progress=True, command=""):
    """Train and measure whatever is not done, and write attack_quality.json. Returns its content."""
    check(config)
    workdir, since = cli.folder(workdir), time.perf_counter()
    source = data.load("digits", "test")
    source = data.subset(source, min(config.limit, len(source)), seed=0) if config.limit else source
    images, labels = source.gather(range(len(source)))
    images, labels, cells = unit_interval(jnp.asarray(images)), jnp.asarray(labels), []
    names = [(label, seed) for seed in config.seeds for label in results.plain(config)["models"]]
    with cli.bar("attack quality", len(names) * len(config.budgets), progress) as bar:
        for label, seed in names:
            logits_fn, variables, about = _model(config, workdir, label, seed)
            correct = np.asarray(_correct(logits_fn, images, labels))
            parts = Parts(workdir, weights=parallel.fingerprint(variables), data=source.fingerprint, model=about)
            for budget in config.budgets:
                rows = {}
                for name, make in candidates(budget).items():
                    settings = {"attack": make(config.eps).settings, "radii": list(config.radii), "seed": seed}
                    rows[name] = parts.measure(f"{label}-{seed}-{budget}", settings, functools.partial(_broken, make, config.radii, logits_fn, images, labels, seed))
                cells.append({"model": label, "seed": seed, "budget": budget, "correct": correct.astype(int).tolist(), "broken": rows})
                bar.advance(0, 1)
    found = {"config": results.plain(config), "command": command, "versions": environment.versions(), "commit": results.commit(), "examples": len(labels),
             "device": f"{jax.devices()[0].device_kind} x {len(jax.devices())}", "cells": [_scored(cell, cells, config) for cell in cells],
             "seconds": round(time.perf_counter() - since, 1)}
    results.save_json(workdir / "attack_quality.json", found)
    return found


def _model(config, workdir, label, seed):
    """(logits_fn, variables, its description) of a model, trained first if it is not done: a plain network, or a catalog model in a run's folder."""
    section = config.models[label]
    if section.name in small_nets.NETS:
        net, epochs = small_nets.NETS[section.name], config.epochs or EPOCHS
        train = data.load("digits", "train")
        images, labels = train.gather(range(len(train)))
        variables = small_nets.train(net, unit_interval(jnp.asarray(images)), jnp.asarray(labels), jax.random.key(seed), eps=config.eps, epochs=epochs)
        return jax.tree_util.Partial(net.apply, variables), variables, {"net": section.name, "epochs": epochs}
    recipe = digits.get_config("objective=pgd_at")
    recipe.model, recipe.seed, recipe.epochs = section, seed, config.epochs or recipe.epochs
    recipe.validation.update(every_epochs=recipe.epochs, limit=recipe.batch_size)
    folder = workdir / "models" / f"{label}-{seed}"
    training.run(recipe, folder, progress=False)
    opened = checkpoints.open_weights(str(folder), checkpoint="latest")
    run = base.complete(opened.config)
    classifier = models.Classifier(opened.create_model(), tuple(run.preprocessing.mean), tuple(run.preprocessing.std))
    variables = opened.variables(classifier)
    return vmamba_jax.logits_fn(classifier, variables), variables, build.description(classifier)


@jax.jit
def _correct(logits_fn, images, labels):
    return losses.correct(logits_fn(images), labels)


@jax.jit
def _attacked(attack, logits_fn, images, labels, key):
    return ~losses.correct(logits_fn(attack(logits_fn, images, labels, key)), labels)


def _broken(make, radii, logits_fn, images, labels, seed):
    """Per radius one hexadecimal text with a bit per image (the first the highest): whether it is misclassified under the attack."""
    rows = [np.asarray(_attacked(make(eps), logits_fn, images, labels, jax.random.key(seed))) for eps in radii]
    return [np.packbits(row).tobytes().hex() for row in rows]


def _bits(texts, n):
    return np.stack([np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:n] for text in texts]).astype(bool)


def _scored(cell, cells, config):
    """A cell with each attack's local optimality and its robust accuracy at config.eps; the best distances are those of all attacks and budgets."""
    n, limit, at = len(cell["correct"]), config.radii[-1], list(config.radii).index(config.eps)
    same = [other for other in cells if (other["model"], other["seed"]) == (cell["model"], cell["seed"])]
    found = {(other["budget"], name): optimality.distances(_bits(rows, n), config.radii, other["correct"]) for other in same
             for name, rows in other["broken"].items()}
    best = np.minimum.reduce(list(found.values()))
    scores = {name: {"optimality": optimality.local_optimality(found[cell["budget"], name], best, limit),
                     "robust_accuracy": float((np.asarray(cell["correct"], bool) & ~_bits(rows, n)[at]).mean())} for name, rows in cell["broken"].items()}
    return {"model": cell["model"], "seed": cell["seed"], "budget": cell["budget"], "accuracy": float(np.mean(cell["correct"])), "attacks": scores}


def _flags():
    flags.DEFINE_bool("page", False, "only draw the page again, from the saved JSON")
    return ("page",)


def main(config, workdir, page):
    if not page:
        run(config, workdir, command=cli.command("experiments.attack_quality"))
    with cli.checking("--page"):
        path = reports.write_attack_quality(pathlib.Path(workdir))
    cli.report(f"page: {path}")


if __name__ == "__main__":
    cli.main(main, doc=__doc__, define=_flags)
