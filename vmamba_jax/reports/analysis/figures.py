"""Pictures of an analysis: receptive fields, activation maps over photos, and states over depth."""
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw

from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE, data_uri, legend_below, literal, pil_image, svg

POWER = 0.2   # of a receptive field, as the paper draws it
SIDE = 168    # pixels of a picture on the page
STRENGTH = 0.65  # of the map over the photo
MEASURES = {"delta": "step size", "decay": "decay per step", "B": "norm of B", "C": "norm of C", "skip": "share of the output through D"}


def field(values):
    """A receptive field as a picture: to the power 0.2, over its maximum, red to green as in the paper."""
    raised = np.asarray(values, np.float64) ** POWER
    return data_uri(_sized(_colored(raised / max(raised.max(), 1e-300), "RdYlGn")).quantize(64), "png", optimize=True)


def photo(pixels, grid=None, place=None):
    """A photo, with the query patch outlined."""
    return data_uri(_outlined(_sized(pil_image(np.asarray(pixels) / 255).convert("RGB")), grid, place), "webp", quality=80)


def overlay(pixels, values, place=None):
    """A map (rows, columns) over a photo, from its least to its largest value; yellow is large. place: (row, column) of the query, outlined."""
    low, high = np.min(values), np.max(values)
    scaled = (np.asarray(values, np.float64) - low) / (high - low) if high > low else np.zeros(np.shape(values))
    base = _sized(pil_image(np.asarray(pixels) / 255).convert("L").convert("RGB"))
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(base.size, Image.Resampling.BILINEAR)
    found = Image.blend(base, _colored(np.asarray(smooth), "viridis"), STRENGTH)
    return data_uri(_outlined(found, np.shape(values), place), "webp", quality=80)


def statistics(cells):
    """Statistics over depth, a panel for each measure and a line for each model, with 95 % intervals over images.

    Args:
        cells: [(label, cell of part "statistics"), ...].
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.4), layout="constrained")
        panels = figure.subplots(2, 3).ravel()
        panels[-1].set_axis_off()
        for axes, (name, title) in zip(panels, MEASURES.items(), strict=False):
            for i, (label, cell) in enumerate(cells):
                rows = [row[name] for row in cell["blocks"]]
                depth, color = np.arange(len(rows)), SERIES[i % len(SERIES)]
                axes.plot(depth, [row["mean"] for row in rows], marker=MARKERS[i % len(MARKERS)], markersize=4, color=color,
                          label=literal(label) if name == "delta" else None)
                if rows[0]["low"] is not None:
                    axes.fill_between(depth, [row["low"] for row in rows], [row["high"] for row in rows], color=color, alpha=0.15, linewidth=0)
            axes.set(title=title, xlabel="block")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if name in ("decay", "skip"):
                axes.set_ylim(0, 1.02)
            else:
                axes.set_yscale("log")
        legend_below(figure)
        return svg(figure, f"States of {', '.join(label for label, _ in cells)} by block.")


def _colored(values, name):
    """Values (H, W) in [0, 1] as an RGB picture in a color map."""
    return Image.fromarray((matplotlib.colormaps[name](values)[..., :3] * 255).round().astype(np.uint8))


def _sized(picture):
    """The picture at a larger side of `SIDE` pixels."""
    scale = SIDE / max(picture.size)
    return picture.resize(tuple(max(1, round(side * scale)) for side in picture.size), Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST)


def _outlined(picture, grid, place):
    if place is not None:
        height, width = picture.height / grid[0], picture.width / grid[1]
        top, left = place[0] * height, place[1] * width
        draw = ImageDraw.Draw(picture)
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline="white", width=2)
        draw.rectangle((left - 2, top - 2, left + width + 1, top + height + 1), outline="#d55e00")
    return picture
