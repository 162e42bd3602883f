"""Figures as SVG text in the page's own colors, and images as data URIs."""
import base64
import html
import io
import re
import warnings

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator, PercentFormatter
from PIL import Image

from vmamba_jax.core.statistics import accuracy_interval
from vmamba_jax.reports import exports

# Okabe and Ito's palette, distinguishable with any color vision; each series has its own marker too.
SERIES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
VALIDATION = {"validation/accuracy": "-", "validation/robust_accuracy": "--"}  # metric, line
TICKS = 8  # largest number of ticks of a budget
INK, FAINT = "#1b1f24", "#c9ced6"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "vmamba_jax", "font.family": "sans-serif", "font.size": 11, "figure.facecolor": "none",
    "axes.facecolor": "none", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK, "ytick.color": INK,
    "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "xtick.major.size": 0, "ytick.major.size": 0, "xtick.major.pad": 6, "ytick.major.pad": 6,
    "lines.linewidth": 2.0, "lines.markersize": 5.5, "legend.frameon": False,
}


def training_curves(runs):
    """Training loss and validation accuracy, clean and attacked, against the epoch, as SVG text."""
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
        for axes in (left, right):
            mark_ramps(axes, [ramp_epochs(run) for run in runs])
        percent_axis(right)
        handles = [Line2D([], [], color=SERIES[i % len(SERIES)], marker=MARKERS[i % len(MARKERS)], label=literal(run.label)) for i, run in enumerate(runs)]
        legend_below(figure, handles)
        return svg(figure, f"Training loss and validation accuracy of {_names(runs)} over the epochs.")


def robustness(runs):
    """Accuracy against the perturbation budget, one line for each run with its 95 % interval, as SVG text."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        axes = figure.subplots()
        for i, run in enumerate(runs):
            curve, color = run.evaluation["curve"], SERIES[i % len(SERIES)]
            x, y = np.asarray(curve["radii"]), np.asarray(curve["robust_accuracy"])
            low, high = np.transpose([accuracy_interval(each, run.evaluation["examples"]) for each in y])
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(x, y, marker=MARKERS[i % len(MARKERS)], color=color, label=literal(run.label))
        eps = runs[0].headline["eps"]
        axes.axvline(eps, color=INK, linewidth=1, linestyle=":", zorder=0)
        axes.annotate(f"radius of the table, {radius_name(eps)}", (eps, 1.0), xytext=(5, -1), textcoords="offset points", fontsize=9.5, va="bottom")
        norm = runs[0].evaluation["curve"]["norm"]
        axes.set(xlabel=f"perturbation budget ({norm_name(norm)} radius, pixels in [0, 1])", ylabel="accuracy", xlim=(0, None))
        budget_axis(axes, [radius for run in runs for radius in run.evaluation["curve"]["radii"]])
        percent_axis(axes)
        axes.legend()
        return svg(figure, f"Accuracy of {_names(runs)} against the perturbation budget.")


def ramp_steps(results):
    """Steps over which the radius of a training's attack grows from 0, from its results.json; 0 without a ramp. Only a first phase has one."""
    lengths = (results.get("phases") or [results.get("schedule")])[0]
    if lengths:
        return lengths.get("ramp", 0)
    return results.get("config", {}).get("objective", {}).get("ramp", 0) * results.get("steps", 0)  # files of earlier versions have the share alone


def ramp_epochs(run):
    """`ramp_steps` of a run in epochs."""
    return ramp_steps(run.results) / (run.results.get("steps_per_epoch") or 1)


def mark_ramps(axes, ends):
    """Shade the part of a training over which the radius grows, and name it; ramps of different ends overlap. ends: on the axis, 0 for none."""
    found = sorted({end for end in ends if end})
    for end in found:
        axes.axvspan(0, end, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
        axes.axvline(end, color=INK, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    if found:
        axes.annotate("radius grows", (0, 0), xycoords=axes.get_xaxis_transform(), xytext=(4, 4), textcoords="offset points", fontsize=9, va="bottom")


def legend_below(figure, handles=None):
    """A legend below a figure, with as many columns as its width holds. handles: of the entries; None: those of the axes."""
    figure.legend(loc="outside lower center", **fitting(figure, handles))


def fitting(figure, handles=None, most=6, fontsize=11.0):
    """{"handles", "ncols", "fontsize"} of a legend whose rows fit into a figure: 0.6 of the font's size for a letter, four sizes for line and margins.

    Args:
        figure: with its axes drawn.
        handles: of the entries; None: those of the axes.
        most: largest number of columns.
        fontsize: in points.
    """
    if handles is None:
        handles = [handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]]
    longest = max((len(handle.get_label()) for handle in handles), default=1)
    room = int(72 * figure.get_figwidth() / (fontsize * (0.62 * longest + 4)))
    return {"handles": handles, "ncols": max(1, min(most, len(handles), room)), "fontsize": fontsize}


def norm_name(norm):
    """A norm's symbol: "linf" -> "L\u221e"."""
    return {"linf": "L\u221e", "l2": "L2", "l1": "L1", "l0": "L0"}.get(norm, norm)


def radius_name(eps):
    """A radius as papers write it: 8/255 for a multiple of 1/255 that is no short decimal, otherwise 0.2."""
    steps = eps * 255
    return f"{round(steps)}/255" if round(eps, 3) != eps and abs(steps - round(steps)) < 1e-6 else f"{eps:.4g}"


def budget_axis(axes, radii):
    """Ticks at multiples of 1/255, written n/255, if the radii are multiples of half of it and not all short decimals; else nothing changes."""
    steps = [255 * radius for radius in radii]
    if not any(step and round(radius, 3) != radius for step, radius in zip(steps, radii, strict=True)) or any(abs(2 * step - round(2 * step)) > 1e-6 for step in steps):
        return
    width = next(size for size in (2**i for i in range(9)) if max(steps) / size <= TICKS)
    axes.xaxis.set_major_locator(MultipleLocator(width / 255))
    axes.xaxis.set_major_formatter(lambda value, _: f"{round(255 * value)}/255" if round(255 * value) else "0")


def tile(image, size=64):
    """A [0, 1] image (H, W, 1 or 3) as a PNG data URI, enlarged without smoothing to at least `size` pixels."""
    picture = pil_image(image)
    repeat = max(1, -(-size // min(picture.size)))
    return data_uri(picture.resize((picture.width * repeat, picture.height * repeat), Image.Resampling.NEAREST), "png", optimize=True)


def pil_image(image):
    """A [0, 1] image (H, W, 1 or 3) as a PIL image of 8 bits."""
    pixels = np.round(np.clip(np.asarray(image, np.float64), 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def data_uri(picture, form, **options):
    """A PIL image as a data URI. form: "png" or "webp"; options: of `PIL.Image.Image.save`."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def svg(figure, alt):
    """A figure as inline SVG whose colors are the page's CSS variables (light, dark, print). alt: its text for screen readers."""
    text = drawn(figure)
    box = re.search(r'viewBox="[^"]*"', text).group()
    text = text[text.index("</defs>") + len("</defs>"):]  # the first <defs> holds a style for `*`, which would apply to the whole page
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # axes_1 and the like would be repeated in a page
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)  # the page sets the font
    for color, name in {INK: "--ink", FAINT: "--faint", **{c: f"--series-{i}" for i, c in enumerate(SERIES)}}.items():
        text = text.replace(color, f"var({name}, {color})")
    inline = f'<svg role="img" aria-label="{html.escape(alt)}" {box}>{text}'
    exports.remember(inline, alt, figure)
    return inline


def drawn(figure):
    """A figure as a whole SVG file."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts draw the text
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def literal(text):
    """A text that Matplotlib draws as it is: no mathematics between dollar signs, no legend entry left out for a leading underscore, no lone
    surrogates (bytes of a file name that are no UTF-8)."""
    text = str(text).encode("utf-8", "backslashreplace").decode().replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def percent_axis(axes):
    """Set the vertical axis to accuracy, 0 to 100 %."""
    axes.set_ylim(0, 1.02)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _names(runs):
    return " and ".join(run.label for run in runs)
