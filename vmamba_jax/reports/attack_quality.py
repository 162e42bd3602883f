"""The page of attacks at equal budgets: local and global optimality, robust accuracy, and claims over seeds, drawn from saved results alone."""
import pathlib

import numpy as np

from vmamba_jax.core import files
from vmamba_jax.reports import claims, figures, page
from vmamba_jax.reports.sweep import figures as sweep_figures

CLAIMS = (  # sentence, source, the stronger attack, the other
    ("APGD with the probability margin is stronger than with DLR", "2411.15210", "APGD, probability margin", "APGD, DLR"),
    ("PMA is stronger than APGD with DLR", "2411.15210", "PMA", "APGD, DLR"),
    ("PMA is stronger than APGD with cross-entropy", "2411.15210", "PMA", "APGD, cross-entropy"),
    ("PMA is stronger than targeted APGD", "new", "PMA", "APGD-T"),
    ("MALT's targets make targeted APGD stronger", "2407.02240", "APGD-T, MALT", "APGD-T"))
MEASURES = {"optimality": ("optimality", 1), "robust_accuracy": ("robust accuracy", -1)}  # name, sign with which more is stronger


def write_attack_quality(folder, *, commands=()):
    """Write attack_quality.html and attack_quality.md to the folder of `experiments.attack_quality`. Returns the page's path."""
    folder = pathlib.Path(folder)
    found = files.read_json(folder / "attack_quality.json")
    page.put(folder / "attack_quality.md", attack_quality_md(found))
    return page.put(folder / "attack_quality.html", render_attack_quality(found, commands=commands))


def values(found, budget, attack, measure, model=None):
    """{seed: mean over the models, or the one model's value} of an attack at a budget; of optimality the mean over models is the global one."""
    seeds = {}
    for cell in found["cells"]:
        if cell["budget"] == budget and model in (None, cell["model"]) and attack in cell["attacks"]:
            seeds.setdefault(cell["seed"], []).append(cell["attacks"][attack][measure])
    return {seed: float(np.mean(each)) for seed, each in seeds.items()}


def judged(found):
    """[claim, ...]: each of `CLAIMS` at each budget by each measure, its difference positive if the claimed attack is stronger."""
    rows = []
    for sentence, source, strong, weak in CLAIMS:
        for budget in found["config"]["budgets"]:
            for measure, (name, sign) in MEASURES.items():
                one, other = (values(found, budget, attack, measure) for attack in (strong, weak))
                if shared := sorted(one.keys() & other.keys()):
                    row = claims.judge([sign * (one[seed] - other[seed]) for seed in shared], found["config"]["margin"])
                    rows.append(row | {"sentence": sentence, "source": source, "budget": budget, "measure": name, "unit": "points"})
    return rows


def attacks_of(found):
    """Names of the attacks, in the order of the program."""
    return list(dict.fromkeys(name for cell in found["cells"] for name in cell["attacks"]))


def score_rows(found):
    """(columns, rows) of means over seeds, in %: local optimality on each model and global optimality at each budget, and robust accuracy."""
    models, budgets = list(dict.fromkeys(cell["model"] for cell in found["cells"])), found["config"]["budgets"]
    kinds = [(f"{model}, local", "optimality", model) for model in models] + [("global", "optimality", None), ("robust accuracy", "robust_accuracy", None)]
    mean = lambda budget, attack, measure, model: (lambda x: f"{100 * np.mean(list(x.values())):.1f}" if x else "")(values(found, budget, attack, measure, model))
    columns = ["attack", *(f"{name}, {budget} passes" for budget in budgets for name, _, _ in kinds)]
    return columns, [[attack, *(mean(budget, attack, measure, model) for budget in budgets for _, measure, model in kinds)] for attack in attacks_of(found)]


def claim_rows(found):
    """(columns, rows) of the claims."""
    return (["claim", "from", "passes", "by", "seeds", "difference, points", "95 % interval", "verdict"],
            [[each["sentence"], each["source"], str(each["budget"]), each["measure"], str(each["n"]), claims.value(each), claims.interval(each), each["verdict"]]
             for each in judged(found)])


def attack_quality_md(found):
    """Scores and claims as two GitHub Markdown tables."""
    return claims.markdown_tables((score_rows(found), claim_rows(found)))


def render_attack_quality(found, *, commands=()):
    """The page as text."""
    names, budgets = attacks_of(found), found["config"]["budgets"]
    look = lambda name: {"color": figures.SERIES[names.index(name) % len(figures.SERIES)], "marker": figures.MARKERS[names.index(name) % len(figures.MARKERS)]}
    drawn = sweep_figures.dots(names, {f"Global optimality, {budget} passes": {name: list(values(found, budget, name, "optimality").values()) for name in names}
                                       for budget in budgets}, look, "Global optimality of every attack at every budget.")
    environment = [(name, value) for name, value in {
        "device": found["device"], "versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()), "commit": found["commit"],
        "took": f"{found['seconds']:.0f} s"}.items() if value]
    columns, rows = score_rows(found)
    return page.draw(
        "attack_quality.html", title="Attacks at equal budgets", commands=commands or [found["command"]] * bool(found["command"]), environment=environment,
        found=found, drawn=drawn, scores=(columns[1:], [(name, cells) for name, *cells in rows]), claimed=claim_rows(found))
