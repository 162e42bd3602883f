"""The page of the study of adaptation: accuracy by corruption and method, and under attackers who know the method."""
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vmamba_jax.reports import claims, measured
from vmamba_jax.reports.figures import MARKERS, SERIES, STYLE, legend_below, percent_axis, svg

NAME = "adapt"
STATISTICS = "statistics"  # the method without updates whose batch norms use the batch's statistics
FROZEN = ("none", STATISTICS, "lame")
ABOUT = ("Means over seeds ± standard deviation, in percent. Statistics: no update, batch norms use the statistics of the batch. Continual: one stream over "
         "all corruptions in this order, nothing is reset; reset: the start again at each corruption. Attacks are PGD on clean images: before, on the model as "
         "it was before it adapted to the attacked batch; through, on the model that adapts, with gradients through the update; known: for each batch the "
         "worse of both, since an attacker who knows the method can choose. Poisoned: the attacker changes some images of a batch, accuracy is that of the "
         "others.")


def read_adapt(folder) -> measured.ReadStudy:
    """Read a study. Raises FileNotFoundError if the folder holds none."""
    return measured.read(folder, f"{NAME}.json", _html)


def write_adapt(folder, *, commands=()):
    """Write adapt.html, adapt.json and adapt.md to a study's folder. Returns the page's path."""
    study = read_adapt(folder)
    return measured.write(folder, NAME, study, _sections(study), _judged(study), commands)


def _html(study, commands=()):
    return measured.html(NAME, study, _sections(study), _judged(study), _drawn(study), ABOUT, commands)


def adapt_text(study):
    """Claims and tables for a terminal."""
    return claims.text_tables([measured.claims_table(_judged(study)), *(section[1:] for section in _sections(study))])


def _mean(setting, method):
    """Mean accuracy over the corruptions."""
    return lambda content: float(np.mean(list(content["streams"][setting][method].values())))


def _judged(study):
    made = []
    for group in study.groups:
        first = next(iter(study.of(group).values())).content
        for setting, methods in first["streams"].items():
            made += [measured.Claim(f"{method} raises mean accuracy under corruption above that without adaptation ({setting})",
                                    lambda c, s=setting, m=method: _mean(s, m)(c) - _mean(s, "none")(c), group) for method in methods if method != "none"]
            made += [measured.Claim(f"{method} raises mean accuracy under corruption above that of the batch's statistics alone ({setting})",
                                    lambda c, s=setting, m=method: _mean(s, m)(c) - _mean(s, STATISTICS)(c), group)
                     for method in methods if method not in FROZEN and STATISTICS in methods]
        made += [measured.Claim(f"The reset at each corruption is more accurate than the continual stream: {method}",
                                lambda c, m=method: _mean("reset", m)(c) - _mean("continual", m)(c), group)
                 for method in first["streams"].get("reset", {}) if method not in FROZEN]
        for method in first["attacked"]:
            if method != "none":
                made += [measured.Claim(f"Adaptation by {method} raises accuracy under an attacker who does not know it",
                                        lambda c, m=method: c["attacked"][m]["before"] - c["attacked"]["none"]["before"], group),
                         measured.Claim(f"Adaptation by {method} lowers accuracy under an attacker who knows it",
                                        lambda c, m=method: c["attacked"]["none"]["known"] - c["attacked"][m]["known"], group),
                         measured.Claim(f"The attack through {method} is stronger than the one on the model before it adapts",
                                        lambda c, m=method: c["attacked"][m]["before"] - c["attacked"][m]["through"], group),
                         measured.Claim(f"Poisoned images lower the accuracy on the others: {method}",
                                        lambda c, m=method: c["poisoned"][m]["without"] - c["poisoned"][m]["with"], group)]
    return measured.judged(study, made)


def _ordered(methods):
    """Names of the methods, those that do not adapt first."""
    return sorted(methods, key=lambda name: FROZEN.index(name) if name in FROZEN else len(FROZEN))


def _sections(study):
    sections = []
    for group in study.groups:
        first = next(iter(study.of(group).values())).content
        percent = lambda value, group=group: measured.percent(study.mean(group, value))
        for setting, methods in first["streams"].items():
            rows = [[method, *(percent(lambda c, s=setting, m=method, k=corruption: c["streams"][s][m][k]) for corruption in found), percent(_mean(setting, method))]
                    for method, found in ((name, methods[name]) for name in _ordered(methods))]
            sections.append((f"{group}: accuracy under corruption, {setting}", ["method", *methods["none"], "mean"], rows))
        if not first["attacked"]:
            continue
        rows = [[method, *(percent(lambda c, m=method, k=name: c["attacked"][m][k]) for name in ("clean", "before", "through", "known")),
                 *(percent(lambda c, m=method, k=name: c["poisoned"][m][k]) for name in ("without", "with"))] for method in _ordered(first["attacked"])]
        sections.append((f"{group}: accuracy under attackers who know the method",
                         ["method", "clean", "attacked before", "attacked through", "known", "others, not poisoned", "others, poisoned"], rows))
    return sections


def _drawn(study):
    figures = []
    for group in study.groups:
        first = next(iter(study.of(group).values())).content
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(9.6, 3.6), layout="constrained")
            panels = figure.subplots(1, len(first["streams"]), sharey=True, squeeze=False)[0]
            for axes, (setting, methods) in zip(panels, first["streams"].items(), strict=True):
                for i, method in enumerate(_ordered(methods)):
                    found = methods[method]
                    means = [study.mean(group, lambda c, s=setting, m=method, k=k: c["streams"][s][m][k])["mean"] for k in found]
                    axes.plot(range(len(found)), means, marker=MARKERS[i % len(MARKERS)], color=SERIES[i % len(SERIES)], linestyle=("-", "--", ":", "-.")[i // len(SERIES) % 4],
                              label=method if axes is panels[0] else None)
                axes.set(title=setting, xticks=range(len(found)))
                axes.set_xticklabels([name.replace("_", " ") for name in found], rotation=40, ha="right")
            panels[0].set_ylabel("accuracy")
            percent_axis(panels[0])
            legend_below(figure)
            figures.append((svg(figure, f"Accuracy of every method by corruption, {group}."), f"{group}: accuracy by corruption, means over seeds."))
    return figures
