"""Figures as SVG text that takes its colours from the page, and images as PNG data URIs."""
import base64
import html
import io
import re

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from PIL import Image

from vmamba_jax.core.statistics import accuracy_interval

# Okabe and Ito's palette, told apart with any colour vision; each series has its own marker as well.
SERIES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
VALIDATION = {"validation/accuracy": "-", "validation/robust_accuracy": "--"}  # metric, line
INK, FAINT = "#1b1f24", "#c9ced6"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "vmamba_jax", "font.family": "sans-serif", "font.size": 11, "figure.facecolor": "none", "axes.facecolor": "none", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK, "ytick.color": INK,
    "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "xtick.major.size": 0, "ytick.major.size": 0, "xtick.major.pad": 6, "ytick.major.pad": 6,
    "lines.linewidth": 2.0, "lines.markersize": 5.5, "legend.frameon": False,
}


def training_curves(runs):
    """Training loss, and validation accuracy with and without an attack, against the epoch. Returns SVG text."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for i, run in enumerate(runs):
            per_epoch, look = run.results.get("steps_per_epoch") or 1, {"color": SERIES[i % len(SERIES)]}
            steps, loss = run.series("loss")
            left.plot(np.divide(steps, per_epoch), loss, **look)
            for key, line in VALIDATION.items():
                steps, accuracy = run.series(key)
                right.plot(np.divide(steps, per_epoch), accuracy, line, marker=MARKERS[i % len(MARKERS)], **look)
        left.set(title="Training loss", xlabel="epoch", xlim=(0, None), ylim=(0, None))
        right.set(title="Validation accuracy", xlabel="epoch", xlim=(0, None))
        percent_axis(right)
        handles = [Line2D([], [], color=SERIES[i % len(SERIES)], marker=MARKERS[i % len(MARKERS)], label=run.label) for i, run in enumerate(runs)]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(runs))
        return svg(figure, "Training loss and validation accuracy of " + _names(runs) + " over the epochs.")


def robustness(runs):
    """Accuracy against the size of the perturbation, one line a run with its 95 % interval. Returns SVG text."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        axes = figure.subplots()
        for i, run in enumerate(runs):
            curve, color = run.evaluation["curve"], SERIES[i % len(SERIES)]
            x, y = np.asarray(curve["radii"]), np.asarray(curve["robust_accuracy"])
            low, high = np.transpose([accuracy_interval(each, run.evaluation["examples"]) for each in y])
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(x, y, marker=MARKERS[i % len(MARKERS)], color=color, label=run.label)
        eps = runs[0].headline["eps"]
        axes.axvline(eps, color=INK, linewidth=1, linestyle=":", zorder=0)
        axes.annotate(f"table's radius {radius_name(eps)}", (eps, 1.0), xytext=(5, -1), textcoords="offset points", fontsize=9.5, va="bottom")
        norm = runs[0].evaluation["curve"]["norm"]
        axes.set(xlabel=f"perturbation size ({norm_name(norm)} radius, pixels in 0..1)", ylabel="accuracy", xlim=(0, None))
        percent_axis(axes)
        axes.legend()
        return svg(figure, "Accuracy of " + _names(runs) + " falling as the allowed perturbation grows.")


def norm_name(norm):
    """A norm as a reader knows it: "linf" -> "L\u221e"."""
    return {"linf": "L\u221e", "l2": "L2", "l1": "L1", "l0": "L0"}.get(norm, norm)


def radius_name(eps):
    """A radius as papers write it: 0.2, or 8/255 where it is that and no short decimal."""
    steps = eps * 255
    return f"{round(steps)}/255" if round(eps, 3) != eps and abs(steps - round(steps)) < 1e-6 else f"{eps:.4g}"


def tile(image, size=64):
    """A [0, 1] image (H, W, 1 or 3) as a PNG data URI, enlarged without smoothing to at least `size` pixels."""
    pixels = np.round(np.clip(np.asarray(image, np.float64), 0, 1) * 255).astype(np.uint8)
    repeat = max(1, -(-size // min(pixels.shape[:2])))
    pixels = pixels.repeat(repeat, axis=0).repeat(repeat, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def svg(figure, alt):
    """A figure as inline SVG: colours become the page's variables (light, dark, print), and `alt` what a screen reader says."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    box = re.search(r'viewBox="[^"]*"', text).group()
    text = text[text.index("</defs>") + len("</defs>"):]  # the first holds a style for `*`, which would reach the whole page
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # axes_1 and the like would stand twice in a page
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)  # the page's own
    for color, name in {INK: "--ink", FAINT: "--faint", **{c: f"--series-{i}" for i, c in enumerate(SERIES)}}.items():
        text = text.replace(color, f"var({name}, {color})")
    return f'<svg role="img" aria-label="{html.escape(alt)}" {box}>{text}'


def literal(text):
    """A text that Matplotlib draws as it is: no mathematics between dollar signs, and no legend entry left out for a leading underscore."""
    text = str(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def percent_axis(axes):
    """Accuracy on the vertical axis, 0 to 100 %."""
    axes.set_ylim(0, 1.02)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _names(runs):
    return " and ".join(run.label for run in runs)
