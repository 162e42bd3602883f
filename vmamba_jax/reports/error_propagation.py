"""Figures of error propagation, from the arrays that `analysis.error_propagation`, `.error_bounds` and `.selective_bounds` return."""
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE, literal, svg


def change_rate_figure(results):
    """Change rates of MSE and KL over the components, one color for each split, as SVG text.

    Args:
        results: {name of a split: result of `analysis.change_rates`}, all of one model.
    """
    names = next(iter(results.values()))["components"]
    if any(list(result["components"]) != list(names) for result in results.values()):
        raise ValueError(f"results={list(results)}: expected results of one model, with the same components")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.6 + 0.28 * len(names)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, kind in zip(panels, ("mse", "kl"), strict=True):
            for i, (split, result) in enumerate(results.items()):
                offsets = np.arange(len(names)) + 0.8 * (i + 0.5) / len(results) - 0.4
                axes.barh(offsets, result[f"{kind}_change_rate"], 0.8 / len(results), color=SERIES[i % len(SERIES)], label=literal(split))
            axes.set(title=f"Change rate of {kind.upper()}", xlabel="(after - before) / before")
            axes.set_xscale("symlog", linthresh=1)
        panels[0].set_yticks(np.arange(len(names)), [literal(name) for name in names])
        panels[0].invert_yaxis()
        panels[1].legend()
        return svg(figure, f"Change rate of the error between clean and adversarial features over {len(names)} components.")


def sequence_error_figure(result, components=None):
    """Error after each component at every step of the sequence, as SVG text.

    Args:
        result: of `analysis.sequence_errors`.
        components: names to draw; None: the blocks, or all if there are none.
    """
    names = list(result["components"])
    chosen = list(components) if components is not None else [name for name in names if name.startswith("block")] or names
    if unknown := [name for name in chosen if name not in names]:
        raise ValueError(f"components={unknown!r}: expected names among {', '.join(names)}")
    return _lines("Error along the sequence", "step", "root mean square error", {name: result["error"][names.index(name)] for name in chosen},
                  f"Root mean square error of {len(chosen)} components at every step.", y="log")


def bound_figure(bound, searched, title="Worst-case error of a fixed-parameter scan"):
    """A bound and what search reaches, sorted by the bound, as SVG text.

    Args:
        bound, searched: (C,), of the channels' errors.
    """
    order = np.argsort(bound)
    return _lines(title, "channel, sorted", "error at the last step", {"bound": np.asarray(bound)[order], "found by search": np.asarray(searched)[order]},
                  f"{title}: the bound, and the error that search finds, over the channels.")


def looseness_figure(result):
    """Width of the sound bound and range of the sampled outputs at every step, as SVG text. result: of `analysis.bound_looseness`."""
    return _lines("Sound bound of a selective scan", "step", "width", {"bound": result["width"], "sampled": result["sampled"]},
                  "Width of the sound bound and of the sampled outputs at every step.", y="log")


def error_growth_figure(result):
    """Error against the step size, data-dependent and fixed, as SVG text. result: of `analysis.error_growth`."""
    series = {"data-dependent, sound bound": result["bound"], "data-dependent, found by search": result["searched"],
              "fixed parameters, exact": result["fixed"]}
    return _lines("Error growth against the step size", "step size", "largest error at the last step", series,
                  "Largest output error of a data-dependent scan and of its fixed-parameter counterpart against the step size.", y="log", x="log",
                  at=np.asarray(result["step_sizes"]), marked=True)


def _lines(title, xlabel, ylabel, series, alt, *, x="linear", y="linear", at=None, marked=False):
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        axes = figure.subplots()
        for i, (name, values) in enumerate(series.items()):
            places = np.arange(len(values)) if at is None else at
            axes.plot(places, np.asarray(values), color=SERIES[i % len(SERIES)], marker=MARKERS[i % len(MARKERS)] if marked else None, label=literal(name),
                      linestyle="-" if i < len(SERIES) else "--")
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale=x, yscale=y)
        axes.legend()
        return svg(figure, alt)
