"""Figures of the dense page: label maps drawn over images, scores over the training and over severities."""
import colorsys

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE, mark_ramps, percent_axis, ramp_steps, svg, tile

ALPHA = 0.6                    # of a label's color over the image
FIRST = ((0, 0, 0), (230, 85, 13), (0, 158, 115), (0, 114, 178), (240, 200, 60), (204, 121, 167), (86, 180, 233))


def palette(classes):
    """A color (classes, 3) in [0, 1] for each class; the first is black and is drawn clear."""
    more = [tuple(255 * c for c in colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.75, 0.55 + 0.4 * (k % 3) / 2)) for k in range(max(0, classes - len(FIRST)))]
    return np.array([*FIRST, *more][:classes]) / 255


def colors_of(classes, clear=True):
    """A color (classes, 3) in [0, 1] for each class; `clear`: class 0 is a background, black in a legend; else it has a color too."""
    return palette(classes) if clear else palette(classes + 1)[1:]


def over(image, label, classes, ignore=255, clear=True):
    """The image (H, W, 3) in [0, 1] with its label map (H, W) drawn over it; ignored pixels are gray, and class 0 has no color if `clear`."""
    colors = colors_of(classes, clear)
    colors = np.concatenate([colors, np.full((256 - classes, 3), 0.5)]) if classes < 256 else colors
    shown = image if image.shape[-1] == 3 else np.repeat(image, 3, -1)
    drawn = (1 - ALPHA) * shown + ALPHA * colors[label]
    return np.where(((label == 0) & (label != ignore))[..., None], 0.75 * shown, drawn) if clear else drawn


def tiles(found, classes, places):
    """[{"index", "score" or None, "images": [(caption, data URI), ...]}, ...] of some places in a run's arrays."""
    arrays, rows = found.arrays, []
    worst = dict(zip(found.content["worst"], found.content["worst_mIoU"], strict=True))
    for place in places:
        index = int(arrays["index"][place])
        image, label = arrays["images"][place], arrays["labels"][place]
        shown = [("image", image), ("label", over(image, label, classes)), ("prediction", over(image, arrays["predictions"][place], classes))]
        if "adversarial" in arrays:
            attacked = arrays["adversarial"][place]
            shown += [("attacked", attacked), ("its prediction", over(attacked, arrays["adversarial_predictions"][place], classes))]
        rows.append({"index": index, "score": worst.get(index), "images": [(caption, tile(each, 128)) for caption, each in shown]})
    return rows


def training(study):
    """Validation mIoU or mask AP over the training, clean solid and attacked dashed; the first seed of each group."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for i, (group, runs) in enumerate(study.groups.items()):
            steps, rows = zip(*runs[0].curve, strict=True) if runs[0].curve else ((), ())
            metric, last = runs[0].metric, max(steps, default=1)
            for key, line in ((f"validation/{metric}", "-"), (f"validation/robust_{metric}", "--")):
                axes.plot([step / last for step in steps], [row[key] for row in rows], line, color=SERIES[i % len(SERIES)], marker=MARKERS[i % len(MARKERS)],
                          label=group if line == "-" else None)
        axes.set(xlabel="share of the training", ylabel="validation mIoU or mask AP", xlim=(0, None))
        percent_axis(axes)
        mark_ramps(axes, [ramp_steps(runs[0].results) / max(step for step, _ in runs[0].curve) for runs in study.groups.values() if runs[0].curve])
        axes.legend()
        return svg(figure, f"Validation mIoU or mask AP over the training of {', '.join(study.groups)}.")


def corruptions(study):
    """mIoU or mask AP by severity, the mean over corruptions and seeds, a line for each group; severity 0 is clean."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for i, (group, runs) in enumerate(study.groups.items()):
            rows = [row for each in runs for row in each.content["corruptions"]["rows"]]
            severities = sorted({row["severity"] for row in rows})
            score = "mIoU" if runs[0].task == "segmentation" else "AP"
            means = [np.mean([each.content["clean"][runs[0].metric] for each in runs])]
            means += [np.mean([row[score] for row in rows if row["severity"] == severity]) for severity in severities]
            axes.plot([0, *severities], means, marker=MARKERS[i % len(MARKERS)], color=SERIES[i % len(SERIES)], label=group)
        axes.set(xlabel="severity of the corruption (0: clean)", ylabel="mIoU or mask AP", xticks=range(6))
        percent_axis(axes)
        axes.legend()
        return svg(figure, f"Scores by severity of the corruptions for {', '.join(study.groups)}.")
