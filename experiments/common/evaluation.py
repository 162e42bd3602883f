"""The evaluation of one model in a folder: accuracy, attacks, the curve over radii, corruptions, calibration, hidden states; see `experiments.evaluate`."""
import jax
import numpy as np

import vmamba_jax
from configs import base
from experiments.common import build, classes, cli, corrupted, limits, results
from experiments.common.parts import Parts
from vmamba_jax import analysis, attacks, checkpoints, evaluation, parallel
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import keys_at
from vmamba_jax.evaluation import staged
from vmamba_jax.evaluation.loop import Loop
from vmamba_jax.evaluation.sets import enter
from vmamba_jax.reports.differences import RIGHT, packed

SIGNS = 64  # images that the signs of gradient masking are measured on, at most
STATES = 8  # images of a batch whose hidden states are in memory together, unless there are more devices


def run(config, workdir, checkpoint="best", *, progress=True, command=""):
    """Evaluate as config.evaluation says, and write evaluation.json and examples.npz.

    A saved evaluation.json of the same identity (versions, weights, images, settings) is returned without measuring anything; one of another
    identity is replaced, and a line says what differs. Each part is saved as it is done (`Parts`), and measured again only if its own identity differs.

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
    if build.is_dense(config):
        raise cli.ConfigError(f"config.model.name={config.model.name!r}: expected a classifier; experiments.dense measures segmenters")
    workdir, section = cli.folder(workdir, remote=True), config.evaluation
    named, attack, radii = _attacks(section)
    with cli.checking("config.weights" if config.weights else "checkpoint"):
        opened = checkpoints.open_weights(config.weights, checkpoint=checkpoint) if config.weights else \
            checkpoints.open_weights(workdir, checkpoint=checkpoint, weights="ema" if config.ema_decay else "raw")
    source = build.source(config, section.split, section.limit)
    if config.weights:
        source = classes.weights_classes(opened, source)
    else:
        classes.check_draw(config, workdir, section.split)
        source = classes.trained_classes(config, source, workdir)
    classifier = build.classifier(config, source)
    if config.weights:
        classifier = classes.over_classes(classifier, source, "classes" in config.data.options)
    with cli.checking("config.weights" if config.weights else "checkpoint"):
        variables, origin = opened.variables(classifier, log=cli.report), _origin(config, opened, checkpoint)

    description, weights = build.description(classifier), parallel.fingerprint(variables)
    identity = results.identity(weights=weights, data=source.fingerprint, settings={
        "evaluation": results.plain(section), "model": description, "checkpoint": origin})
    if (done := results.saved(workdir / "evaluation.json", identity, cli.report)) is not None:
        return done

    mesh = parallel.data_mesh()
    logits_fn = vmamba_jax.logits_fn(classifier, parallel.replicate(variables, mesh))
    with cli.checking("config.evaluation"):
        entered = enter(logits_fn, source, Loop(batch_size=section.batch_size, mesh=mesh))
    for name, each in named.items():
        if hasattr(each, "stages"):
            with cli.checking("config.evaluation.autoattack" if name == "autoattack" else f"config.evaluation.attacks.{name}"):
                staged.check(each, entered)
    corrupting, bins = corrupted.names(section.corruptions.names), section.calibration.bins
    measuring = section.states.images if analysis.has_scans(classifier) else 0
    parts = Parts(workdir, weights=weights, data=source.fingerprint, model=description)
    measured = len(named) + len([radius for radius in radii if radius not in (0.0, attack.eps)]) + len(corrupting) + bool(bins) + bool(measuring) + (not named)
    with cli.bar("evaluation", measured * len(source), progress) as bar:
        work = _Work(logits_fn, source, section, mesh, parts, workdir, bar)
        table = {name: work.attack(name, each) for name, each in named.items()}
        clean = next(iter(table.values())) if table else work.clean()
        known = {0.0: clean["accuracy"]} | ({attack.eps: table[section.curve.attack]["robust_accuracy"]} if table else {})
        curve = {radius: known[radius] if radius in known else work.attack(f"radius_{radius:.3g}", build.resized(attack, radius))["robust_accuracy"]
                 for radius in radii}
        rows = [row for name in corrupting for row in work.corruption(name)]
        calibration = work.calibration(bins) if bins else None
        states = work.states(classifier, variables, measuring) if measuring else None
    if parts.reused:
        cli.report(f"measured earlier, and not again: {', '.join(parts.reused)}")

    right = _right_images(clean, table)
    content = {
        "split": source.split, "examples": len(source), "accuracy": clean["accuracy"], "accuracy_interval": clean["accuracy_interval"],
        "attacks": table, RIGHT: right, "seed": section.seed, "checkpoint": origin, "identity": identity, "command": command,
        **results.provenance(source),
        "curve": {"attack": section.curve.attack, "label": build.attack_label(attack), "norm": attack.norm, "radii": list(curve),
                  "robust_accuracy": list(curve.values())} if table else None,
        "corruptions": {"rows": rows, **corrupted.summary(rows, source)} if rows else None, "calibration": calibration,
        "states": states, "seconds": round(parts.seconds, 1),
    }
    if table and section.examples:
        results.save_arrays(workdir / "examples.npz", **_examples(logits_fn, source, attack, work.key, section.examples))
    elif jax.process_index() == 0:
        (workdir / "examples.npz").unlink(missing_ok=True)  # of an earlier evaluation, with examples or under an attack that this one lacks
    results.save_json(workdir / "evaluation.json", content)
    work.finish()
    return content


class _Work:
    """The measurements of one evaluation: each a part, with its progress.

    Args:
        logits_fn, source, mesh: as of the package's evaluations.
        section: config.evaluation.
        parts: `Parts`.
        workdir: folder for the state of multi-stage attacks.
        bar: progress bar that counts images.
    """

    def __init__(self, logits_fn, source, section, mesh, parts, workdir, bar):
        self.logits_fn, self.source, self.section, self.parts, self.workdir, self.bar = logits_fn, source, section, parts, workdir, bar
        self.key, self.loop, self._states = jax.random.key(section.seed), {"batch_size": section.batch_size, "mesh": mesh}, []

    def attack(self, name, attack):
        """The row of an attack in evaluation.json."""
        settings = {"attack": attack.settings, "seed": self.section.seed}
        label, options = build.attack_label(attack), {}
        if hasattr(attack, "stages"):
            options["state"] = self.workdir / "state" / f"{name}-{results.digest(self.parts.identity(settings))}.npz"
            self._states.append(options["state"])

        def measure(progress):
            result = evaluation.robust_accuracy(self.logits_fn, self.source, attack, key=self.key, progress=progress, **self.loop, **options)
            row = evaluation.summary(result) | {"label": label, "norm": attack.norm, "eps": attack.eps, RIGHT: _right(result)}
            return row | _details(result, attack, self.logits_fn, self.source, self.key, self.section.batch_size) if "stages" in result else row
        return self._part(name, settings, label if not name.startswith("radius_") else name.replace("_", " "), measure)

    def clean(self):
        """Accuracy without an attack."""
        def measure(progress):
            result = evaluation.accuracy(self.logits_fn, self.source, progress=progress, **self.loop)
            return evaluation.summary(result) | {RIGHT: _right(result)}
        return self._part("clean", {}, "clean", measure)

    def corruption(self, name):
        """Rows of one corruption at the section's severities."""
        def measure(progress):
            source, logits_fn = corrupted.as_color(self.source, self.logits_fn)
            with cli.checking("config.evaluation.corruptions"):
                try:
                    return evaluation.corruption_accuracy(logits_fn, source, key=self.key, corruptions=(name,), severities=severities, progress=progress,
                                                          **self.loop)
                except ImportError as error:
                    raise ValueError(f"{name}: {error}") from error
        severities = tuple(sorted(set(self.section.corruptions.severities)))
        return self._part(f"corruption_{name}", {"corruption": name, "severities": severities, "seed": self.section.seed}, name, measure)

    def calibration(self, bins):
        """Expected calibration errors over so many bins of confidence."""
        return self._part("calibration", {"bins": bins}, "calibration", lambda progress: evaluation.calibration_error(
            self.logits_fn, self.source, bins=bins, progress=progress, **self.loop))

    def states(self, classifier, variables, images):
        """Statistics of the hidden states of the first images, see `analysis.state_statistics`."""
        batch = min(self.section.batch_size, max(STATES, self.loop["mesh"].size))
        return self._part("states", {"images": images}, "hidden states", lambda progress: analysis.state_statistics(
            classifier, variables, self.source.gather(np.arange(min(images, len(self.source)))), progress=progress, **self.loop | {"batch_size": batch}))

    def finish(self):
        """Remove the states of the multi-stage attacks, which are done."""
        for state in self._states if jax.process_index() == 0 else ():
            state.unlink(missing_ok=True)

    def _part(self, name, settings, label, measure):
        before = self.bar.tasks[0].completed

        def advance(done, n, figures):
            stage = f", {figures['stage']}: {figures['robust']} still robust" if "stage" in figures else ""
            self.bar.update(0, completed=before + done * len(self.source) / n, description=label + stage)
        found = self.parts.measure(name, settings, lambda: measure(advance))
        self.bar.update(0, completed=before + len(self.source))
        return found


def _right(result):
    """Which images were classified correctly, without and with the attack, as text."""
    return {name: packed(result[key]) for name, key in (("clean", "correct"), ("attacked", "robust")) if key in result}


def _right_images(clean, table):
    """{"clean" or an attack's name: the images that were classified correctly, as text}; takes them out of the rows. Parts of earlier versions lack them."""
    found = {"clean": clean.get(RIGHT, {}).get("clean")} | {name: row.get(RIGHT, {}).get("attacked") for name, row in table.items()}
    for row in (clean, *table.values()):
        row.pop(RIGHT, None)
    return {name: text for name, text in found.items() if text is not None}


def _attacks(section):
    """({name: attack}, the curve's attack, its radii ascending) of the evaluation section; ({}, None, []) if it skips the attacks."""
    if section.skip_attacks:
        if section.autoattack:
            raise cli.ConfigError(f"config.evaluation.autoattack={section.autoattack!r}: expected '' with config.evaluation.skip_attacks=True")
        return {}, None, []
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


def _origin(config, opened, checkpoint):
    """JSON-able facts about where the weights come from."""
    step = {} if opened.step is None else {"which": str(checkpoint), "step": opened.step}
    return {"weights": str(config.weights), "metadata": opened.metadata} | step if config.weights else step


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
