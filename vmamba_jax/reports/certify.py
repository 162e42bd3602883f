"""The page of the study of certificates: certified accuracy against radius, beside AutoAttack, and how loose the bounds are."""
import matplotlib
from matplotlib.figure import Figure

from vmamba_jax.reports import claims, measured
from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE, legend_below, percent_axis, svg

NAME = "certify"
ABOUT = ("Means over seeds ± standard deviation, in percent. Smoothed classifiers: the most frequent class under Gaussian noise of that standard deviation, "
         "certified with Clopper and Pearson's bound; an image whose class has no majority counts as wrong. Interval bounds hold for every image of the linf "
         "ball. Looseness: mean width of the bounds of the logits over the range of sampled logits.")


def read_certify(folder) -> measured.ReadStudy:
    """Read a study. Raises FileNotFoundError if the folder holds none."""
    return measured.read(folder, f"{NAME}.json", _html)


def write_certify(folder, *, commands=()):
    """Write certify.html, certify.json and certify.md to a study's folder. Returns the page's path."""
    study = read_certify(folder)
    return measured.write(folder, NAME, study, _sections(study), _judged(study), commands)


def _html(study, commands=()):
    return measured.html(NAME, study, _sections(study), _judged(study), _drawn(study), ABOUT, commands)


def certify_text(study):
    """Claims and tables for a terminal."""
    return claims.text_tables([measured.claims_table(_judged(study)), *(section[1:] for section in _sections(study))])


def _at(sigma, radius):
    """Certified accuracy of a smoothed classifier at an l2 radius."""
    return lambda content: next(row["certified_accuracy"] for row in content["smoothing"][sigma]["curve"] if row["radius"] == radius)


def _interval(eps, name):
    return lambda content: content["interval"][eps][name]


def _judged(study):
    if not study.findings:
        return []
    first = study.findings[0].content
    attacked = [eps for eps, row in first["interval"].items() if "robust" in row]
    made = [measured.Claim(f"Noise in training raises certified accuracy at l2 radius 0.25 (noise {sigma} in training and smoothing)", _at(sigma, 0.25),
                           f"noise_{100 * float(sigma):03.0f}", "standard") for sigma in first["smoothing"]]
    made += [measured.Claim(f"Training on bounds raises the accuracy that bounds certify at linf radius {eps}", _interval(eps, "certified"), "interval", "standard")
             for eps in first["interval"]]
    made += [measured.Claim(f"Training on bounds raises accuracy under AutoAttack at linf radius {eps}", _interval(eps, "robust"), "interval", "standard")
             for eps in attacked]
    made += [measured.Claim(f"Bounds certify less than AutoAttack leaves at linf radius {eps}",
                            lambda c, eps=eps: c["interval"][eps]["robust"] - c["interval"][eps]["certified"], "interval") for eps in attacked]
    made += [measured.Claim("Training on bounds lowers clean accuracy", lambda c: -c["clean"], "interval", "standard")]
    return measured.judged(study, made)


def _sections(study):
    if not study.findings:
        return []
    first = study.findings[0].content
    percent = lambda group, value: measured.percent(study.mean(group, value))
    smoothing = []
    for sigma, found in first["smoothing"].items():
        radii = [row["radius"] for row in found["curve"]]
        rows = [[group, percent(group, lambda c: c["clean"]), percent(group, lambda c, sigma=sigma: c["smoothing"][sigma]["abstention"]),
                 *(percent(group, _at(sigma, radius)) for radius in radii)] for group in study.groups]
        smoothing.append((f"Smoothing with noise {sigma}: certified accuracy by l2 radius", ["group", "clean, no noise", "abstains", *map(str, radii)], rows))
    attacked = [eps for eps, row in first["interval"].items() if "robust" in row]
    rows = [[group, percent(group, lambda c: c["clean"]), *(percent(group, _interval(eps, "certified")) for eps in first["interval"]),
             *(percent(group, _interval(eps, "robust")) for eps in attacked)] for group in study.groups]
    interval = ("Interval bounds: certified accuracy by linf radius", ["group", "clean", *first["interval"], *(f"AutoAttack {eps}" for eps in attacked)], rows)
    rows = [[group, *(f"{study.mean(group, _interval(eps, 'looseness'))['mean']:.3g}" for eps in first["interval"])] for group in study.groups]
    broken = sum(row.get("broken", 0) + row["outside"] for each in study.findings for row in each.content["interval"].values())
    loose = (f"Looseness of the bounds by linf radius ({broken} certified images broken, or sampled logits outside)", ["group", *first["interval"]], rows)
    return [*smoothing, interval, loose]


def _drawn(study):
    if not study.findings:
        return []
    first = study.findings[0].content
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        panels = figure.subplots(1, len(first["smoothing"]) + 1, sharey=True)
        for i, group in enumerate(study.groups):
            look = {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i % len(MARKERS)]}
            for axes, (sigma, found) in zip(panels, first["smoothing"].items(), strict=False):
                radii = [row["radius"] for row in found["curve"]]
                axes.plot(radii, [study.mean(group, _at(sigma, radius))["mean"] for radius in radii], label=group if axes is panels[0] else None, **look)
                axes.set(title=f"smoothing, noise {sigma}", xlabel="L2 radius")
            eps = list(first["interval"])
            panels[-1].plot([float(each) for each in eps], [study.mean(group, _interval(each, "certified"))["mean"] for each in eps], **look)
            attacked = [each for each in eps if "robust" in first["interval"][each]]
            panels[-1].plot([float(each) for each in attacked], [study.mean(group, _interval(each, "robust"))["mean"] for each in attacked], ":", **look)
        panels[-1].set(title="interval bounds", xlabel="L\u221e radius", xscale="log")
        panels[0].set_ylabel("certified accuracy")
        percent_axis(panels[0])
        legend_below(figure)
        return [(svg(figure, "Certified accuracy of every group against the radius, by smoothing and by interval bounds."),
                 "Certified accuracy against the radius, means over seeds; dotted: accuracy under AutoAttack on the first of these images.")]
