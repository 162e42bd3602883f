"""The study of Adaptive Scaling read from its folder: figures of every run, and claims with intervals over seeds."""
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping

from vmamba_jax.core import files, statistics
from vmamba_jax.reports import measured
from vmamba_jax.reports.claims import MARGIN, judge
from vmamba_jax.reports.displayed import Displayed
from vmamba_jax.reports.sweep.results import read_sweep

FILE = "ads.json"
KINDS = ("relu", "sigmoid", "tanh")
FIXED, DEPENDENT, ATTENTION = ("s4", "dss", "s5"), ("mamba",), ("mega", "transformer")  # models by what their mixing of the tokens depends on
THEMES = {"bounded": "Fixed-parameter models gain little from adversarial training", "explosion": "Errors explode in data-dependent models",
          "attention": "Attention overfits", "ads": "Adaptive Scaling helps without overfitting"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one run has.

    Attributes:
        group, seed: of the run; the group's name is <model>-<ads>-<objective>.
        content: of ads.json.
    """
    group: str
    seed: int
    content: Mapping

    def accuracy(self, metric, at="last"):
        """Accuracy in [0, 1] of the checkpoint `at`, "best" or "last"; metric "clean", "pgd", "autoattack", "train_clean" or "train_pgd"."""
        return self.content[at][metric]

    @property
    def overfitting(self):
        """Robust overfitting: accuracy under PGD of the best checkpoint minus that of the last."""
        return self.accuracy("pgd", "best") - self.accuracy("pgd")

    @property
    def gap(self):
        """Robust generalization gap of the last checkpoint: accuracy under PGD on training images minus that on test images."""
        return self.accuracy("train_pgd") - self.accuracy("pgd")

    def amplification(self, kind):
        """Mean over the components of a kind ("scan", "ads", ...) of log10(error after / error before), the errors being MSE; None without any."""
        rates = self.content["rates"]
        found = [math.log10(max(after, 1e-30) / max(before, 1e-30)) for name, before, after in
                 zip(rates["components"], rates["mse_before"], rates["mse_after"], strict=True) if name.rpartition("/")[2] == kind]
        return sum(found) / len(found) if found else None

    def worst_case(self, relative=False):
        """Mean over the layers of log10(sum |K|), or of log10(sum |K| / sqrt(sum K^2)) if relative; None for a model without kernels."""
        found = [math.log10(each["worst"] / (each["energy"] if relative else 1)) for each in self.content["kernels"]]
        return sum(found) / len(found) if found else None


COLUMNS = {  # of the tables: name, value of a finding
    "clean, last": lambda f: f.accuracy("clean"), "PGD-10, last": lambda f: f.accuracy("pgd"), "AutoAttack, last": lambda f: f.accuracy("autoattack"),
    "clean, best": lambda f: f.accuracy("clean", "best"), "PGD-10, best": lambda f: f.accuracy("pgd", "best"),
    "AutoAttack, best": lambda f: f.accuracy("autoattack", "best"), "best - last": lambda f: f.overfitting, "train - test": lambda f: f.gap}


class AdsStudy(Displayed, measured.Study):
    """The study: its sweep, and the `Finding`s of the runs that are done."""
    render_name = "render_ads"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence about a weighted sum over groups.

    Attributes:
        theme: a key of THEMES.
        sentence: what is seen if the sum is above 0, or, with claimed="not above", if it is not.
        value: finding -> number.
        plus, minus: groups whose mean counts positively and negatively; those without findings are left out.
        source: "paper" or "new".
        unit: "points" (accuracies) or "" (logarithms).
        claimed: of `judge`.
        sign: 1, or -1 to negate the value.
    """
    theme: str
    sentence: str
    value: Callable
    plus: tuple
    minus: tuple = ()
    source: str = "paper"
    unit: str = "points"
    claimed: str = "above"
    sign: int = 1

    def judge(self, study):
        """{"theme", "sentence", "source", "unit", "plus", "minus", **judge}; None if a side of the claim has no findings."""
        sides = [[group for group in side if study.of(group)] for side in (self.plus, self.minus)]
        if not sides[0] or (self.minus and not sides[1]):
            return None
        seeds = sorted(set.intersection(*(set(study.of(group)) for side in sides for group in side)))
        if not seeds:
            return None
        mean = lambda side, seed: sum(self.value(study.of(group)[seed]) for group in side) / len(side) if side else 0.0
        values = [self.sign * (mean(sides[0], seed) - mean(sides[1], seed)) for seed in seeds]
        return {"theme": self.theme, "sentence": self.sentence, "source": self.source, "unit": self.unit, "plus": sides[0], "minus": sides[1],
                **judge(values, MARGIN if self.unit == "points" else 0.0, self.claimed)}


def _groups(models, ads=("none",), objective="pgd_at"):
    return tuple(f"{model}-{kind}-{objective}" for model in models for kind in ads)


def claims(study):
    """The claims, in the order of the page. Gains compare PGD training with standard training of the models that have both."""
    trained = lambda models: [name for name in models if study.of(f"{name}-none-pgd_at") and study.of(f"{name}-none-standard")]
    robust, clean, overfitting, gap = COLUMNS["PGD-10, last"], COLUMNS["clean, last"], COLUMNS["best - last"], COLUMNS["train - test"]
    fixed, dependent = trained(FIXED), trained(DEPENDENT)
    scan, ads = (lambda f: f.amplification("scan")), (lambda f: f.amplification("ads"))
    log = {"unit": ""}
    found = [_gain(study, dependent, fixed)] if fixed and dependent else []
    kernels = [name for name in ("s4", "dss") if name in fixed]
    found += [
        Claim("bounded", "PGD training lowers the exact worst-case error of the scans of S4 and DSS (log10 of sum |K|, standard minus PGD training).",
              lambda f: f.worst_case(), _groups(kernels, objective="standard"), _groups(kernels), "new", **log),
        Claim("bounded", "It lowers it by more than the gain of the signal (log10 of sum |K| / sqrt(sum K^2), standard minus PGD training).",
              lambda f: f.worst_case(relative=True), _groups(kernels, objective="standard"), _groups(kernels), "new", **log),
        Claim("explosion", "After PGD training, Mamba's scan amplifies the adversarial error more than those of S4 and DSS (log10 of MSE after / before).",
              scan, _groups(DEPENDENT), _groups(("s4", "dss")), **log),
        Claim("explosion", "The same after standard training.", scan, _groups(DEPENDENT, objective="standard"),
              _groups(("s4", "dss"), objective="standard"), **log),
        Claim("explosion", "After PGD training, Mamba's scan amplifies the error at all (log10 of MSE after / before).", scan, _groups(DEPENDENT), (), **log),
        Claim("attention", "S4 with attention has a higher accuracy under PGD than S4 (best checkpoints).", COLUMNS["PGD-10, best"],
              _groups(("s4",), ("attention",)), _groups(("s4",))),
        Claim("attention", "S4 with attention overfits more than S4 (best minus last).", overfitting, _groups(("s4",), ("attention",)), _groups(("s4",))),
        Claim("attention", "S4 with attention has a larger robust generalization gap than S4 (train minus test).", gap, _groups(("s4",), ("attention",)),
              _groups(("s4",))),
        Claim("attention", "Models with attention (Mega, Transformer, S4 with attention) overfit more than those without (S4, DSS, S5, Mamba).", overfitting,
              (*_groups(ATTENTION), *_groups(("s4",), ("attention",))), _groups((*FIXED, *DEPENDENT))),
        Claim("attention", "They have a larger robust generalization gap.", gap, (*_groups(ATTENTION), *_groups(("s4",), ("attention",))),
              _groups((*FIXED, *DEPENDENT)))]
    for words, value in (("the accuracy under PGD", robust), ("the clean accuracy", clean)):
        found += [Claim("ads", f"AdS (mean of its kinds) raises {words} of S4.", value, _groups(("s4",), KINDS), _groups(("s4",)))]
        found += [Claim("ads", f"AdS raises {words} of {name}.", value, _groups((model,), KINDS), _groups((model,)), source)
                  for model, name, source in (("dss", "DSS", "paper"), ("mamba", "Mamba", "new"), ("vmamba", "VMamba", "new"))]
    return found + [
        Claim("ads", "AdS raises the accuracy under PGD of S4 above that of S4 with a GELU after each layer.", robust, _groups(("s4",), KINDS),
              _groups(("s4",), ("gelu",)), "new"),
        Claim("ads", "AdS overfits no more than S4 without it (best minus last).", overfitting, _groups(("s4",), KINDS), _groups(("s4",)),
              claimed="not above"),
        Claim("ads", "AdS overfits less than attention at the same place (best minus last).", overfitting, _groups(("s4",), ("attention",)),
              _groups(("s4",), KINDS)),
        Claim("ads", "AdS lowers the adversarial error of the features (log10 of MSE before / after it, S4).", ads, _groups(("s4",), KINDS), (), sign=-1, **log),
        Claim("ads", "The same in VMamba.", ads, _groups(("vmamba",), KINDS), (), "new", sign=-1, **log)]


@dataclasses.dataclass(frozen=True)
class _Gain(Claim):
    """The difference of two differences: `minus` has the groups of standard training, `against` the other models' groups of both kinds."""
    against: tuple = ((), ())

    def judge(self, study):
        ours, others = (Claim(self.theme, "", self.value, *sides).judge(study) for sides in ((self.plus, self.minus), self.against))
        seeds = min(len(ours["values"]), len(others["values"]))
        values = [a - b for a, b in zip(ours["values"][:seeds], others["values"][:seeds], strict=True)]
        return ours | {"sentence": self.sentence, "plus": list(self.plus), "minus": list(self.against[0]), **judge(values, MARGIN, self.claimed)}


def _gain(study, dependent, fixed):
    return _Gain("bounded", "PGD training raises the accuracy under PGD of Mamba by more than that of the fixed-parameter models (gain over standard training).",
                 COLUMNS["PGD-10, last"], _groups(dependent), _groups(dependent, objective="standard"),
                 against=(_groups(fixed), _groups(fixed, objective="standard")))


def judged(study):
    """The judgement of every claim that some seed has the groups of."""
    return [found for claim in claims(study) if (found := claim.judge(study)) is not None]


def helped(study):
    """[{"model", "ads", "objective", "metric", **judge}, ...]: accuracy of the last checkpoint with AdS minus that without, and of the attention control."""
    rows = []
    for group in study.groups:
        model, ads, objective = group.split("-")
        if ads == "none":
            continue
        for metric in ("clean, last", "PGD-10, last", "AutoAttack, last"):
            found = Claim("ads", "", COLUMNS[metric], (group,), (f"{model}-none-{objective}",)).judge(study)
            if found is not None:
                rows.append({"model": model, "objective": objective, **found, "ads": ads, "metric": metric})
    return rows


def answer(study):
    """Two sentences: in how many comparisons AdS raised the accuracy under PGD of the sequence models, and of VMamba."""
    rows = [row for row in helped(study) if row["ads"] in KINDS and row["metric"] == "PGD-10, last"]
    sentences = []
    for name, chosen in (("sequence models", [row for row in rows if row["model"] != "vmamba"]), ("VMamba", [row for row in rows if row["model"] == "vmamba"])):
        if not chosen:
            continue
        many = [row for row in chosen if row["n"] > 1]
        up, down = sum(row["low"] > 0 for row in many), sum(row["high"] < 0 for row in many)
        mean = 100 * sum(row["mean"] for row in chosen) / len(chosen)
        sentences.append(f"Last accuracy under PGD-10 of {name} with AdS minus without: {mean:+.1f} points, the mean of {len(chosen)} comparison"
                         f"{'s' * (len(chosen) > 1)}, of which {up} {'has' if up == 1 else 'have'} a 95 % interval above 0 and {down} one below.")
    return " ".join(sentences)


def table(study):
    """[{"group", "metric", **mean_interval}, ...] over seeds, by group in the sweep's order."""
    return [{"group": group, "metric": metric, **statistics.mean_interval([value(each) for each in study.of(group).values()])}
            for group in study.groups for metric, value in COLUMNS.items()]


def read_ads(folder) -> AdsStudy:
    """Read a study. Raises FileNotFoundError if the folder holds none."""
    sweep = read_sweep(pathlib.Path(folder))
    read = [(each, files.read_json(sweep.folder / each.name / FILE)) for each in sweep.done]
    return AdsStudy(sweep, [Finding(each.group, each.seed, content) for each, content in read if content is not None])
