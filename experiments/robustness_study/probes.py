"""What a study asks of a model: one function for each kind of probe, each a few calls of the package.

A function gets (bench, its own section of config.probes) and returns what a cell holds: "rows", one for each figure, and what else the page draws.
"""
import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.tree_util import Partial

from experiments.common import build, cli
from experiments.robustness_study.cells import picture, row
from experiments.robustness_study.models import Subject
from vmamba_jax import analysis, data, evaluation
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import keys_at
from vmamba_jax.data.datasets import imagenet


class NotApplicable(Exception):
    """Why a probe has no meaning for a model, or lacks its data: a cell of its own kind, not a failure."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """One model ready to be probed.

    subject: the model. logits_fn: its weights on every device. options: "key", "batch_size" and "mesh" of all evaluations. config: the study's.
    state: where an attack of several stages keeps its state. progress: called with the share done, in [0, 1], and a word.
    """
    subject: Subject
    logits_fn: Callable
    options: dict
    config: object
    state: object
    progress: Callable

    source = property(lambda self: self.subject.source)

    def report(self, done, n, figures):
        """Progress as the package's evaluations tell it."""
        self.progress(done / n, figures.get("stage", ""))

    def example(self, source=None):
        """The page's image (1, H, W, C) in [0, 1], its label (1,), and its place in the set, (1,)."""
        source = source or self.source
        index = np.array([self.config.example % len(source)])
        images, labels = source.gather(index)
        return unit_interval(images), labels, index

    def pictured(self, images, labels, label="", logits_fn=None, classes=None):
        """The first of the images as the page shows it, with what the model, or another function, reads in it."""
        classes = classes or self.source.classes
        read = int(_predict(logits_fn or self.logits_fn, images)[0])
        return picture(images[0], _name(classes[read]), _name(classes[int(labels[0])]), label)


def clean(bench, probe):
    result = evaluation.accuracy(bench.logits_fn, bench.source, progress=bench.report, **_without_key(bench))
    images, labels, _ = bench.example()
    return {"rows": [row(result["correct"])], "pictures": [bench.pictured(images, labels)]}


def attack(bench, probe):
    """Accuracy under one attack. AutoAttack keeps its state beside the cells and shows no picture: it changes only what still stands."""
    made = build.attack(probe.attack, "attack")
    staged = hasattr(made, "stages")
    _, labels, index = bench.example()
    result = evaluation.robust_accuracy(bench.logits_fn, bench.source, made, progress=bench.report, **bench.options,
                                        **({"state": bench.state} if staged else {"show": index}))
    cell = {"rows": [row(result["robust"], eps=made.eps, norm=made.norm)], "attack": result["attack"], "label": build.attack_label(made)}
    if staged:
        return cell | {"stages": result["stages"]}
    return cell | {"pictures": [bench.pictured(result["adversarial"], labels)]}


def curve(bench, probe):
    """Accuracy at every radius of one attack, its steps in proportion."""
    made = build.attack(probe.attack, "attack")
    rows = evaluation.accuracy_curve(bench.logits_fn, bench.source, functools.partial(build.resized, made), probe.radii, progress=bench.report,
                                     **bench.options)
    return {"label": build.attack_label(made), "norm": made.norm,
            "rows": [{"x": each["eps"], "accuracy": each["robust_accuracy"], "interval": each["robust_accuracy_interval"]} for each in rows]}


def components(bench, probe):
    """What blocking one part of the scans in the attacker's gradient does, in all blocks or in one stage after the other."""
    model = bench.subject.classifier.model
    if bench.subject.facts["kind"] != "state space":
        raise NotApplicable(f"{type(model).__name__} has no selective scan whose gradients could be taken apart")
    if probe.blocks and not hasattr(model, "stop_blocks"):
        raise NotApplicable(f"{type(model).__name__} has no stages")
    result = analysis.component_gradients(bench.subject.classifier, bench.subject.variables, bench.source, build.attack(probe.attack, "attack"),
                                            components=probe.components, blocks=probe.blocks or None, progress=bench.report, **bench.options)
    facts = ("component", "blocks", "difference", "gained", "lost")
    return {"accuracy": result["robust_accuracy"], "attack": result["attack"], "examples": result["examples"],
            "rows": [{name: each[name] for name in facts} | {"accuracy": each["robust_accuracy"], "interval": each["difference_interval"]}
                     for each in result["components"]]}


def disturbance(bench, probe):
    """Accuracy at every value of one option of a disturbance, and what it costs image by image."""
    known = evaluation.accuracy(bench.logits_fn, bench.source, **_without_key(bench))["correct"]
    images, labels, index = bench.example()
    rows, pictures = [], []
    for i, value in enumerate(probe.steps):
        disturb = evaluation.disturbances.create(**probe.disturbance.to_dict(), **{probe.over: value})
        result = evaluation.disturbed_accuracy(bench.logits_fn, bench.source, disturb, clean=known, **bench.options)
        x = "x".join(map(str, value)) if isinstance(value, tuple) else value
        rows.append(_disturbed(x, result))
        changed = np.asarray(disturb(images, keys_at(bench.options["key"], index), *(
            (bench.logits_fn, labels) if disturb.needs_model else ())))
        pictures.append(bench.pictured(changed, labels, str(x)))
        bench.progress((i + 1) / len(probe.steps), str(x))
    return {"rows": rows, "pictures": pictures, "over": probe.over}


def corruption(bench, probe):
    """Accuracy at every severity of one of ImageNet-C's corruptions. Of grey images it is the first channel of the corrupted colour image."""
    source, logits_fn = bench.source, bench.logits_fn
    grey = source.image_shape[-1] == 1
    if grey:
        images, labels = source.gather(np.arange(len(source)))
        source, logits_fn = data.Arrays(images.repeat(3, -1), labels, source.classes), Partial(_first_channel, logits_fn)
    try:
        evaluation.corruptions.corrupt(probe.corruption, 1, np.zeros((1, 8, 8, 3), np.float32), bench.options["key"])
    except ImportError as error:
        raise NotApplicable(str(error)) from error
    found = evaluation.corruption_accuracy(logits_fn, source, corruptions=(probe.corruption,), severities=probe.severities, progress=bench.report,
                                           **bench.options)
    images, labels, index = bench.example(source)
    keys = keys_at(bench.options["key"], index)
    pictures = []
    for severity in probe.severities:
        changed = np.asarray(evaluation.corruptions.corrupt(probe.corruption, severity, images, keys))
        pictures.append(bench.pictured(changed[..., :1] if grey else changed, labels, f"severity {severity}"))
    return {"rows": [{"x": each["severity"], "accuracy": each["accuracy"], "interval": each["accuracy_interval"], "examples": each["examples"]}
                     for each in found],
            "pictures": pictures, "grey": grey}


def shift(bench, probe):
    """Accuracy over the classes of another set of ImageNet's, and the gap to the study's images of the same classes."""
    if not probe.root:
        raise NotApplicable(f"no folder of {probe.shift} given: --config.probes.{probe.shift}.root=DIR")
    seen = bench.subject.released
    options = {} if seen is None else {"size": seen.size, "resize": seen.resize, "interpolation": seen.interpolation}
    options |= {name: value for name, value in bench.config.data.options.items() if name != "classes"}
    found = evaluation.shifts.load(probe.shift, probe.root, **options)
    if bench.config.data.limit:
        found = data.subset(found, min(bench.config.data.limit, len(found)), seed=0)
    result = evaluation.shifts.shift_accuracy(bench.logits_fn, found, probe.shift, validation=bench.source, progress=bench.report,
                                              **_without_key(bench))
    images, labels, _ = bench.example(found)
    shown = bench.pictured(images, labels, probe.shift, evaluation.shifts.sliced(bench.logits_fn, probe.shift), found.classes)
    figure = {"accuracy": result["accuracy"], "interval": result["accuracy_interval"], "examples": result["examples"]}
    return result | {"rows": [figure], "pictures": [shown]}


def trajectory(bench, probe):
    """Accuracy with the order of visit replaced in the model, where it has one, and in the image."""
    changes = ("scan", "image") if getattr(bench.subject.classifier.model, "scan_pattern", None) is not None else ("image",)
    found = analysis.trajectory_accuracy(bench.subject.classifier, bench.subject.variables, bench.source, orders=probe.orders, changes=changes,
                                           grid=probe.grid, progress=bench.report, **_without_key(bench))
    rows = [_disturbed(f"{each['change']}: {each['order']['kind']}", each) for each in found]
    images, labels, _ = bench.example()
    pictures = [bench.pictured(np.asarray(evaluation.disturbances.create("patch_reorder", grid=probe.grid, order=each["order"])(images)), labels,
                               each["order"]["kind"]) for each in found if each["change"] == "image"]
    return {"rows": rows, "pictures": pictures}


def centre(bench, probe):
    """The accuracy that a black window costs at every place, and its slope from the centre outwards, for each step of the window."""
    result = analysis.center_sensitivity(bench.logits_fn, bench.source, probe.window, probe.stride, progress=bench.report, **bench.options)
    images, labels, _ = bench.example()
    step = lambda slope: None if slope is None else slope * probe.stride
    return {"rows": [], "map": result["drop"], "rings": result["rings"], "shape": bench.source.image_shape, "examples": result["examples"],
            "slope": step(result["slope"]), "slope_error": step(result["slope_error_images"]), "pictures": [bench.pictured(images, labels)],
            **{name: result[name] for name in ("window", "stride", "tops", "lefts")}}


KINDS = {"clean": clean, "attack": attack, "curve": curve, "components": components, "disturbance": disturbance, "corruption": corruption,
         "shift": shift, "trajectory": trajectory, "centre": centre}


def run(bench, probe):
    """The content of one cell. Raises NotApplicable, or whatever fails."""
    with cli.checking("kind"):
        if probe.kind not in KINDS:
            raise ValueError(f"{probe.kind!r}: expected one of {', '.join(KINDS)}")
    return KINDS[probe.kind](bench, probe)


def _without_key(bench):
    return {name: value for name, value in bench.options.items() if name != "key"}


def _name(label):
    """A class for a reader: of a WordNet identifier of ImageNet's its first name."""
    return dict(imagenet.classes()).get(label, label).split(",")[0]


def _disturbed(x, result):
    """A cell's row of a result of `disturbed_accuracy`."""
    return row(result["correct"], x=x, **{name: result[name] for name in ("drop", "drop_interval", "lost", "gained")})


def _first_channel(logits_fn, images):
    return logits_fn(images[..., :1])


@jax.jit
def _predict(logits_fn, images):
    return logits_fn(images).argmax(-1)
