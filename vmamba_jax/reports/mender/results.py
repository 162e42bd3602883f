"""The mender's study read from its folder: figures of every run, and claims with intervals over seeds."""
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping

from vmamba_jax.core import files, statistics
from vmamba_jax.reports import measured, tables
from vmamba_jax.reports.claims import MARGIN, judge
from vmamba_jax.reports.displayed import Displayed
from vmamba_jax.reports.sweep.results import read_sweep

FILE = "mender.json"
ACCURACIES = ("test", "conflict", "plain", "attacked")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one run has: mender.json, with the accuracies of evaluation.json.

    Attributes:
        group, seed: of the run.
        content: of mender.json.
        accuracy: {"test", "conflict", "plain", "attacked": accuracy in [0, 1]}.
        examples: number of images of these splits.
        attack: the attack's name, norm and radius.
    """
    group: str
    seed: int
    content: Mapping
    accuracy: Mapping
    examples: int
    attack: str

    def score(self, kind, group, state, block, report="location"):
        """A score of `analysis.locate`: kind "external" or "internal", group such as "difficult"."""
        return next(row[group][kind]["score"] for row in self.content[report]["rows"] if (row["state"], row["block"]) == (state, block))

    def flaw(self, kind, states, block, report="location"):
        """Mean over states of how much worse the second group scores: log ratio of external, difference of internal scores."""
        first, second = self.content[report]["groups"]
        pairs = [[max(self.score(kind, name, state, block, report), 1e-12) for name in (first, second)] for state in states]
        return sum(math.log(a / b) if kind == "external" else a - b for a, b in pairs) / len(pairs)

    def shared(self, kind):
        """Rank correlation, over all states and blocks, of the flaws on difficult samples and on attacked images; None if undefined."""
        return statistics.rank_correlation(*([self.flaw(kind, (state,), block, report) for state, block in self.places]
                                             for report in ("location", "attacked")))

    def cue_share(self, states, block):
        """Mean over states of the share of the correlation that lies in the cue, over the share of the area that the cue covers."""
        found = [self.content["cue"][f"{state}@{block}"] for state in states]
        return sum(each["cue"] / each["cue_area"] for each in found) / len(found)

    @functools.cached_property
    def places(self):
        """(state, block) of every row."""
        return [(row["state"], row["block"]) for row in self.content["location"]["rows"]]

    @property
    def deepest(self):
        """Number of the last block."""
        return max(block for _, block in self.places)

    @property
    def states(self):
        return list(dict.fromkeys(state for state, _ in self.places))

    @property
    def blocks(self):
        return list(dict.fromkeys(block for _, block in self.places))


class Mender(Displayed, measured.Study):
    """The study: its sweep, and the `Finding`s of the runs that are done."""
    render_name = "render_mender"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence about a difference between two groups, or about a value of one group against 0.

    Attributes:
        sentence: what is seen if the value is above 0.
        source: "paper", "control" or "new".
        value: finding -> number, or None where it is undefined, and the seed does not count.
        group, against: the groups; against "": the value itself.
        unit: "points" (accuracies) or "" (scores).
        margin: the claim is not seen if the interval lies within it.
    """
    sentence: str
    source: str
    value: Callable
    group: str
    against: str = ""
    unit: str = ""
    margin: float = 0.0

    def judge(self, study):
        """{"sentence", "source", "group", "against", "unit", "n", "mean", "low", "high", "verdict"}; None if no seed has a value in both groups."""
        ours, others = study.of(self.group), study.of(self.against) if self.against else None
        pairs = [(self.value(ours[seed]), 0.0 if others is None else self.value(others[seed])) for seed in ours if others is None or seed in others]
        values = [first - second for first, second in pairs if first is not None and second is not None]
        if not values:
            return None
        return {"sentence": self.sentence, "source": self.source, "group": self.group, "against": self.against, "unit": self.unit,
                **judge(values, self.margin)}


def claims(external=("c", "s"), internal=("x",)):
    """The claims, in the order of the page."""
    deep = lambda kind, states, report="location": lambda f: f.flaw(kind, states, f.deepest, report)
    difficult = lambda kind, states: lambda f: sum(
        math.log(max(f.score(kind, "difficult", state, f.deepest), 1e-12)) for state in states) / len(states)
    points = {"unit": "points", "margin": MARGIN}
    accuracy = lambda name: lambda f: f.accuracy[name]
    overall = lambda f: sum(f.flaw("external", (state,), block) for state, block in f.places) / len(f.places)
    found = [
        Claim("The cue misleads the model: on the same scenes, accuracy is lower with another class's cue than without a cue.", "new",
              lambda f: f.accuracy["plain"] - f.accuracy["conflict"], "base", **points),
        Claim("The cue misleads the model more than one trained without it (the same drop in accuracy).", "new",
              lambda f: f.accuracy["plain"] - f.accuracy["conflict"], "base", "uncued", **points),
        Claim("The locator finds the planted flaw: more of the correlation of c and s lies in the cue (share over its area, mean over blocks).", "new",
              lambda f: sum(f.cue_share(external, block) for block in f.blocks) / len(f.blocks), "base", "uncued"),
        Claim("The locator ranks the cued model's states above the uncued model's: external flaw, mean over states and blocks.", "new", overall,
              "base", "uncued"),
        Claim("External scores of c and s in the deepest block are lower on difficult samples (log ratio).", "paper", deep("external", external), "base"),
        Claim("Internal scores of x in the deepest block are lower on difficult samples.", "paper", deep("internal", internal), "base")]
    for group, name in (("external", "External repair"), ("internal", "Internal repair"), ("both", "Repair by both penalties")):
        for split, words in (("test", "the test split"), ("conflict", "the conflict split")):
            found.append(Claim(f"{name} raises accuracy on {words} above that of the same epochs of cross-entropy.", "paper", accuracy(split), group,
                               "ce", **points))
    for group, against, words in (("external", "random_masks", "with random masks"), ("internal", "random_templates", "with random templates"),
                                  ("both", "random_block", "of a random block")):
        found.append(Claim(f"Repair ({group}) raises accuracy on the conflict split above that of a repair {words}.", "control", accuracy("conflict"),
                           group, against, **points))
    return found + [
        Claim("External repair moves the correlation of c and s out of the cue (share over its area, mean over blocks).", "new",
              lambda f: -sum(f.cue_share(external, block) for block in f.blocks) / len(f.blocks), "external", "ce"),
        Claim("Repair raises the external score of c and s on difficult samples (log).", "paper", difficult("external", external), "both", "ce"),
        Claim("Repair raises the internal score of x on difficult samples (log).", "paper", difficult("internal", internal), "both", "ce"),
        Claim("Attacked images score lower than the same images clean: external, c and s, deepest block (log ratio).", "new",
              deep("external", external, "attacked"), "base"),
        Claim("Attacked images score lower than the same images clean: internal, x, deepest block.", "new", deep("internal", internal, "attacked"), "base"),
        Claim("Attacked images are difficult in the same states: rank correlation of the external flaws over states and blocks.", "new",
              lambda f: f.shared("external"), "base"),
        Claim("Attacked images are difficult in the same states: rank correlation of the internal flaws over states and blocks.", "new",
              lambda f: f.shared("internal"), "base"),
        Claim("Repair raises accuracy under attack above that of the same epochs of cross-entropy.", "new", accuracy("attacked"), "both", "ce", **points),
        Claim("An adversarially trained model has a smaller external flaw (c and s, deepest block).", "new", lambda f: -deep("external", external)(f),
              "adversarial", "base")]


def judged(study):
    """The judgement of every claim that some seed has the groups of."""
    return [found for claim in claims() if (found := claim.judge(study)) is not None]


def ranked(study, group="base", shown=3):
    """[{"seed", "kind", "places": [(state, block, flaw), ...]}, ...]: the places of a group's runs with the largest flaws, the largest first."""
    rows = []
    for seed, found in study.of(group).items():
        for kind in ("external", "internal"):
            places = sorted(((state, block, found.flaw(kind, (state,), block)) for state, block in found.places), key=lambda place: -place[2])
            rows.append({"seed": seed, "kind": kind, "places": places[:shown]})
    return rows


def accuracy_rows(study):
    """[{"group", "metric", **mean_interval}, ...] over seeds, by group in the sweep's order."""
    rows = []
    for group in study.sweep.groups:
        for metric in ACCURACIES:
            values = [each.accuracy[metric] for each in study.of(group).values()]
            if values:
                rows.append({"group": group, "metric": metric, **statistics.mean_interval(values)})
    return rows


def read_mender(folder) -> Mender:
    """Read a study. Raises FileNotFoundError if the folder holds none."""
    sweep = read_sweep(pathlib.Path(folder))
    findings = []
    for each in sweep.done:
        content = files.read_json(sweep.folder / each.name / FILE)
        if content is None:
            continue
        evaluation = each.run.evaluation
        accuracy = {"test": evaluation["accuracy"], "attacked": each.run.headline["robust_accuracy"],
                    **{split: content[split]["accuracy"] for split in ("conflict", "plain")}}
        findings.append(Finding(each.group, each.seed, content, accuracy, evaluation["examples"], tables.attack_name(each.run.headline)))
    return Mender(sweep, findings)
