"""The probes of a study: one function per kind, each a few calls of the package.

A function takes (context, its section of config.probes) and returns the content of a cell: "rows", one per figure, and whatever else the page draws.
"""
import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from experiments.common import build, cli, corrupted
from experiments.robustness_study import cells
from experiments.robustness_study.models import StudyModel
from vmamba_jax import analysis, data, evaluation
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import keys_at
from vmamba_jax.data.datasets import imagenet


class NotApplicable(Exception):
    """The probe does not apply to the model, or its data is missing; the message is the reason that the cell records."""


@dataclasses.dataclass(frozen=True)
class ProbeContext:
    """One model and the settings that every probe of it shares.

    Attributes:
        model: the model.
        logits_fn: `vmamba_jax.logits_fn` with the weights on every device.
        options: "key", "batch_size" and "mesh" of all evaluations.
        config: the study's config.
        state: file for the state of a multi-stage attack.
        progress: function of the fraction done, in [0, 1], and a short text.
    """
    model: StudyModel
    logits_fn: Callable
    options: dict
    config: object
    state: object
    progress: Callable

    source = property(lambda self: self.model.source)

    def report(self, done, n, figures):
        """The `progress` argument of the package's evaluations."""
        self.progress(done / n, figures["stage"] if "stage" in figures else "")

    def example(self, source=None):
        """The page's image (1, H, W, C) in [0, 1], its label (1,), and its index in the set, (1,)."""
        source = source or self.source
        index = np.array([self.config.example % len(source)])
        images, labels = source.gather(index)
        return unit_interval(images), labels, index

    def picture(self, images, labels, label="", logits_fn=None, classes=None):
        """`cells.picture` of the first image, with the prediction of `logits_fn`; None: the model's."""
        classes = classes or self.source.classes
        read = int(_predict(logits_fn or self.logits_fn, images)[0])
        return cells.picture(images[0], _name(classes[read]), _name(classes[int(labels[0])]), label)


def clean(context, probe):
    """Clean accuracy."""
    result = evaluation.accuracy(context.logits_fn, context.source, progress=context.report, **_without_key(context))
    images, labels, _ = context.example()
    return {"rows": [cells.row(result["correct"])], "pictures": [context.picture(images, labels)]}


def attack(context, probe):
    """Accuracy under one attack. AutoAttack saves its state next to the cells and has no picture: it perturbs only images that are still robust."""
    made = build.attack(probe.attack, "attack")
    staged = hasattr(made, "stages")
    _, labels, index = context.example()
    result = evaluation.robust_accuracy(context.logits_fn, context.source, made, progress=context.report, **context.options,
                                        **({"state": context.state} if staged else {"show": index}))
    cell = {"rows": [cells.row(result["robust"], eps=made.eps, norm=made.norm)], "attack": result["attack"], "label": build.attack_label(made)}
    if staged:
        return cell | {"stages": result["stages"]}
    return cell | {"pictures": [context.picture(result["adversarial"], labels)]}


def curve(context, probe):
    """Accuracy at every radius of one attack, with the step size in proportion."""
    made = build.attack(probe.attack, "attack")
    rows = evaluation.accuracy_curve(context.logits_fn, context.source, functools.partial(build.resized, made), probe.radii, progress=context.report,
                                     **context.options)
    return {"label": build.attack_label(made), "norm": made.norm,
            "rows": [{"x": each["eps"], "accuracy": each["robust_accuracy"], "interval": each["robust_accuracy_interval"]} for each in rows]}


def components(context, probe):
    """Change of robust accuracy if one component of the scans is blocked in the attack's gradient, in all blocks or per stage."""
    model = context.model.classifier.model
    if context.model.facts["kind"] != "state space":
        raise NotApplicable(f"{type(model).__name__} has no selective scan to block components of")
    if probe.blocks and not hasattr(model, "stop_blocks"):
        raise NotApplicable(f"{type(model).__name__} has no stages")
    result = analysis.component_gradients(context.model.classifier, context.model.variables, context.source, build.attack(probe.attack, "attack"),
                                            components=probe.components, blocks=probe.blocks or None, progress=context.report, **context.options)
    facts = ("component", "blocks", "difference", "gained", "lost")
    return {"accuracy": result["robust_accuracy"], "attack": result["attack"], "examples": result["examples"],
            "rows": [{name: each[name] for name in facts} | {"accuracy": each["robust_accuracy"], "interval": each["difference_interval"]}
                     for each in result["components"]]}


def disturbance(context, probe):
    """Accuracy at every value of one option of a disturbance, and its paired difference from clean accuracy."""
    known = evaluation.accuracy(context.logits_fn, context.source, **_without_key(context))["correct"]
    images, labels, index = context.example()
    rows, pictures = [], []
    for i, value in enumerate(probe.steps):
        disturb = evaluation.disturbances.create(**probe.disturbance.to_dict(), **{probe.over: value})
        result = evaluation.disturbed_accuracy(context.logits_fn, context.source, disturb, clean=known, **context.options)
        x = "x".join(map(str, value)) if isinstance(value, tuple) else value
        rows.append(_disturbed(x, result))
        changed = np.asarray(disturb(images, keys_at(context.options["key"], index), *(
            (context.logits_fn, labels) if disturb.needs_model else ())))
        pictures.append(context.picture(changed, labels, str(x)))
        context.progress((i + 1) / len(probe.steps), str(x))
    return {"rows": rows, "pictures": pictures, "over": probe.over}


def corruption(context, probe):
    """Accuracy at every severity of an ImageNet-C corruption. A gray image becomes the first channel of its corrupted color image."""
    gray = context.source.image_shape[-1] == 1
    source, logits_fn = corrupted.as_color(context.source, context.logits_fn)
    try:
        evaluation.corruptions.corrupt(probe.corruption, 1, np.zeros((1, 8, 8, 3), np.float32), context.options["key"])
    except ImportError as error:
        raise NotApplicable(str(error)) from error
    found = evaluation.corruption_accuracy(logits_fn, source, corruptions=(probe.corruption,), severities=probe.severities, progress=context.report,
                                           **context.options)
    images, labels, index = context.example(source)
    keys = keys_at(context.options["key"], index)
    pictures = []
    for severity in probe.severities:
        changed = np.asarray(evaluation.corruptions.corrupt(probe.corruption, severity, images, keys))
        pictures.append(context.picture(changed[..., :1] if gray else changed, labels, f"severity {severity}"))
    return {"rows": [{"x": each["severity"], "accuracy": each["accuracy"], "interval": each["accuracy_interval"], "examples": each["examples"]}
                     for each in found],
            "pictures": pictures, "gray": gray}


def shift(context, probe):
    """Accuracy on a shifted ImageNet set over its own classes, and the gap to the study's images of the same classes."""
    if not probe.root:
        raise NotApplicable(f"no folder of {probe.shift}; set --config.probes.{probe.shift}.root=DIR")
    released = context.model.released
    options = {} if released is None else {"size": released.size, "resize": released.resize, "interpolation": released.interpolation}
    options |= {name: value for name, value in context.config.data.options.items() if name != "classes"}
    found = evaluation.shifts.load(probe.shift, probe.root, **options)
    if context.config.data.limit:
        found = data.subset(found, min(context.config.data.limit, len(found)), seed=0)
    result = evaluation.shifts.shift_accuracy(context.logits_fn, found, probe.shift, validation=context.source, progress=context.report,
                                              **_without_key(context))
    images, labels, _ = context.example(found)
    shown = context.picture(images, labels, probe.shift, evaluation.shifts.sliced(context.logits_fn, probe.shift), found.classes)
    figure = {"accuracy": result["accuracy"], "interval": result["accuracy_interval"], "examples": result["examples"]}
    return result | {"rows": [figure], "pictures": [shown]}


def trajectory(context, probe):
    """Accuracy with another scan order in the model, if it has one, and with the image's patches in another order."""
    changes = ("scan", "image") if getattr(context.model.classifier.model, "scan_pattern", None) is not None else ("image",)
    found = analysis.trajectory_accuracy(context.model.classifier, context.model.variables, context.source, orders=probe.orders, changes=changes,
                                           grid=probe.grid, progress=context.report, **_without_key(context))
    rows = [_disturbed(f"{each['change']}: {each['order']['kind']}", each) for each in found]
    images, labels, _ = context.example()
    pictures = [context.picture(np.asarray(evaluation.disturbances.create("patch_reorder", grid=probe.grid, order=each["order"])(images)), labels,
                               each["order"]["kind"]) for each in found if each["change"] == "image"]
    return {"rows": rows, "pictures": pictures}


def centre(context, probe):
    """Accuracy lost to a black window at every position, and the slope of the loss from the center outwards, per stride of the window."""
    result = analysis.center_sensitivity(context.logits_fn, context.source, probe.window, probe.stride, progress=context.report, **context.options)
    images, labels, _ = context.example()
    step = lambda slope: None if slope is None else slope * probe.stride
    return {"rows": [], "map": result["drop"], "rings": result["rings"], "shape": context.source.image_shape, "examples": result["examples"],
            "slope": step(result["slope"]), "slope_error": step(result["slope_error_images"]), "pictures": [context.picture(images, labels)],
            **{name: result[name] for name in ("window", "stride", "tops", "lefts")}}


KINDS = {"clean": clean, "attack": attack, "curve": curve, "components": components, "disturbance": disturbance, "corruption": corruption,
         "shift": shift, "trajectory": trajectory, "centre": centre}


def run(context, probe):
    """The content of one cell. Raises NotApplicable, or the error of the probe."""
    if probe.kind not in KINDS:
        raise cli.ConfigError(f"kind={probe.kind!r}: expected one of {', '.join(KINDS)}")
    return KINDS[probe.kind](context, probe)


def _without_key(context):
    return {name: value for name, value in context.options.items() if name != "key"}


def _name(label):
    """Display name of a class: the first name of an ImageNet class for its WordNet identifier, else the label itself."""
    names = dict(imagenet.classes())
    return names[label].split(",")[0] if label in names else label


def _disturbed(x, result):
    """The cell's row for a result of `disturbed_accuracy`."""
    return cells.row(result["correct"], x=x, **{name: result[name] for name in ("drop", "drop_interval", "lost", "gained")})


@jax.jit
def _predict(logits_fn, images):
    return logits_fn(images).argmax(-1)
