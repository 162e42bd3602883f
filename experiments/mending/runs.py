"""A run of the mender's sweep: trained from random weights, or repaired from the weights of another run."""
import dataclasses
import functools
import pathlib

import ml_collections
import numpy as np

from configs import base
from experiments import sweep
from experiments.common import build, cli, training
from vmamba_jax import analysis, data
from vmamba_jax.core import checks
from vmamba_jax.training.objectives import Penalty, repair

RANDOM = ("", "masks", "templates", "blocks")
BATCH = 60  # divides the samples of the small study, so that one program serves all of its measurements


def train(config, folder, *, progress=True):
    """Train as `experiments.train` does, or repair if the objective is "repair"; arguments and errors as of `training.run`."""
    if config.objective.name != "repair":
        return training.run(config, folder, progress=progress)
    return training.run(config, folder, progress=progress, make=functools.partial(make_repair, folder=pathlib.Path(folder)))


def make_repair(config, folder):
    """`build.Run` of a repair: the base model's weights, masks in the batches, and the repair step.

    The base is config.init.checkpoint (a run's folder, a converted folder or a released file), or, if that is "", the run of the same seed in the
    sweep's group config.objective.start.
    """
    section = config.objective
    with cli.checking("config.objective.random"):
        checks.choice("random", section.random, RANDOM)
    plain = ml_collections.ConfigDict(config.to_dict())
    plain.objective = base.run().objective
    start = config.init.checkpoint or str(folder.parent.parent / section.start / folder.name)
    if not config.init.checkpoint and pathlib.Path(start).is_dir():
        with sweep.waiting(start):  # until no other process trains it
            pass
    if not pathlib.Path(start).exists() or (not config.init.checkpoint and not (pathlib.Path(start) / "results.json").is_file()):
        raise cli.RunError(f"config.objective.start={section.start!r}: expected a finished run in {start}; run the group first")
    plain.init.checkpoint = start
    run = build.build(plain)
    masks = getattr(run.train, "masks", None)
    if masks is None:
        raise cli.ConfigError(f"config.data.name={config.data.name!r}: expected a set with masks, such as 'cued_shapes'")
    rng = np.random.default_rng([config.seed, 19])
    external, internal = _penalties(config, run, rng)
    if section.random == "masks":
        masks = masks[rng.permutation(len(masks))]
    step = repair(run.classifier, run.optimizer, external=external, internal=internal, second_order=section.second_order,
                  label_smoothing=section.label_smoothing, ema_decay=build.ema_decay(config))
    return dataclasses.replace(run, config=config, batches=data.Annotated(run.batches, masks), step=step)


def _penalties(config, run, rng):
    """(external, internal) `Penalty` of the blocks that the locator ranks first, or of random ones."""
    section, total = config.objective, sum(run.classifier.model.depths)
    if not section.external and not section.internal:
        return None, None
    report = analysis.locate(run.classifier, run.variables, run.train, per_class=section.per_class, batch_size=BATCH, mesh=run.mesh)
    chosen = {}
    for kind in ("external", "internal"):
        states = section[f"{kind}_states"]
        best = next(each["block"] for each in analysis.ranking(report, kind) if each["state"] in states)
        others = [block for block in range(total) if block != best]
        chosen[kind] = int(rng.choice(others)) if section.random == "blocks" and others else best
    templates = analysis.templates(run.classifier, run.variables, run.train, per_class=section.per_class, states=section.internal_states,
                                   blocks=(chosen["internal"],), batch_size=BATCH, mesh=run.mesh) if section.internal else {}
    if section.random == "templates":
        templates = {place: rng.permuted(x, axis=-1) for place, x in templates.items()}
    return (Penalty(tuple(section.external_states), (chosen["external"],), section.external),
            Penalty(tuple(section.internal_states), (chosen["internal"],), section.internal, templates))
