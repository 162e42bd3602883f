"""A sweep read from its folder, its means over seeds, and its differences from the control group."""
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

from vmamba_jax.core import files, statistics
from vmamba_jax.reports import tables
from vmamba_jax.reports.displayed import Displayed
from vmamba_jax.reports.runs import Run, read_run

CLEAN = "clean"
REASONS = {"running": "it began {since} on {host} and has not finished", "stopped": "it was stopped after it began {since} on {host}"}


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        name, group, seed: of the plan; the name is its folder.
        record: content of its run.json, {} if it did not begin.
        run: its results, None before the first metrics or if a file is damaged.
        damage: which file is damaged, "" for none.
    """
    name: str
    group: str
    seed: int
    record: Mapping
    run: Run | None
    damage: str = ""

    @property
    def done(self):
        """Whether the run finished and its evaluation exists."""
        return self.record.get("status") == "done" and self.run is not None and bool(self.run.evaluation)

    @property
    def status(self):
        """"done", "failed", "running", "stopped", "not begun" or "incomplete"."""
        return self.record.get("status", "not begun") if self.done or self.record.get("status") != "done" else "incomplete"

    @property
    def reason(self):
        """Why there are no results, in words; "" for a run that is done."""
        match self.status:
            case "done":
                return ""
            case "failed":
                return self.record["reason"]
            case "not begun":
                return "no process has taken it yet"
            case "incomplete":
                return self.damage or "its evaluation.json or metrics.jsonl is missing"
        return REASONS[self.status].format(**self.record)


@dataclasses.dataclass(frozen=True)
class Sweep(Displayed):
    """What a sweep's folder holds: sweep.json, and its runs in the order of the plan."""
    render_name = "render_sweep"
    folder: pathlib.Path
    index: Mapping
    runs: Sequence[SweepRun]

    groups = property(lambda self: self.index["groups"])
    margin = property(lambda self: self.index["config"]["margin"])
    control = property(lambda self: self.index["config"]["control"] or self.groups[0], doc="The group that the others are compared with.")
    done = property(lambda self: [run for run in self.runs if run.done])

    @property
    def environment(self):
        """[(name, value), ...] of device, versions, commit and time, for the section "Reproduce"."""
        facts = {"device": self.index["device"], "versions": ", ".join(f"{name} {version}" for name, version in self.index["versions"].items()),
                 "commit": self.index["commit"], "runs took": f"{sum(each.record.get('seconds', 0) for each in self.runs):.0f} s in total"}
        return [(name, value) for name, value in facts.items() if value]

    def axes(self, group):
        """{axis: name of the group's value}, {} if the groups are not a product."""
        return next(run["axes"] for run in self.index["runs"] if run["group"] == group)

    @functools.cached_property
    def values(self):
        """{metric: {group: {seed: accuracy}}}: clean accuracy, and accuracy under each attack by its name, norm and radius."""
        found = {}
        for each in self.done:
            measured = {CLEAN: each.run.evaluation["accuracy"]}
            measured |= {tables.attack_name(result): result["robust_accuracy"] for result in each.run.evaluation["attacks"].values()}
            for metric, value in measured.items():
                found.setdefault(metric, {}).setdefault(each.group, {})[each.seed] = value
        return found

    @functools.cached_property
    def headline(self):
        """The metric that the page leads with: the attack of the accuracy curve, clean accuracy without attacks; None if no run is done."""
        return headline_of(self.done[0].run) if self.done else None


def headline_of(run):
    """Name of the metric that leads a run's figures."""
    return tables.attack_name(run.headline) if run.headline else CLEAN


def read_sweep(folder) -> Sweep:
    """Read a sweep. Raises FileNotFoundError if the folder holds none."""
    folder = pathlib.Path(folder)
    if not (folder / "sweep.json").is_file():
        raise FileNotFoundError(f"folder={folder}: expected sweep.json in it; run `python -m experiments.sweep --workdir {folder}` first")
    index = files.read_json(folder / "sweep.json")
    runs = []
    for line in index["runs"]:
        at = folder / line["name"]
        record, run, damage = {}, None, ""
        try:
            record = files.read_json(at / "run.json") or {}
            run = read_run(at, line["name"], evaluated=False, examples=False) if (at / "metrics.jsonl").is_file() else None
        except ValueError as error:  # one damaged file must not keep the others off the page
            damage = str(error)
        runs.append(SweepRun(line["name"], line["group"], line["seed"], record, run, damage))
    return Sweep(folder, index, runs)


def summary(sweep):
    """The statistics of every group and metric that any seed has.

    Returns:
        A list of {"group", "axes", "metric", "n", "mean", "sd", "low", "high", "difference"}: see `core.statistics.mean_interval`. "difference" is
        that of `difference`, None for the control group and where no seed has both.
    """
    rows = []
    for group in sweep.groups:
        for metric, groups in sweep.values.items():
            if group in groups:
                rows.append({"group": group, "axes": sweep.axes(group), "metric": metric, **statistics.mean_interval(list(groups[group].values())),
                             "difference": difference(sweep, group, metric)})
    return rows


def difference(sweep, group, metric):
    """Mean over the common seeds of the group's accuracy minus the control's, with its interval and "verdict"; None if no seed has both.

    Verdict: "seen" if the 95 % interval excludes 0, "not seen" if it lies within the margin, else "inconclusive", as it is for one seed.
    """
    groups = sweep.values[metric]
    ours, control = groups.get(group, {}), groups.get(sweep.control, {})
    seeds = [seed for seed in ours if seed in control]
    if group == sweep.control or not seeds:
        return None
    found = statistics.mean_interval([ours[seed] - control[seed] for seed in seeds])
    return found | {"verdict": _verdict(found, sweep.margin)}


def _verdict(found, margin):
    if found["n"] < 2:
        return "inconclusive"
    if found["low"] > 0 or found["high"] < 0:
        return "seen"
    return "not seen" if -margin <= found["low"] and found["high"] <= margin else "inconclusive"
