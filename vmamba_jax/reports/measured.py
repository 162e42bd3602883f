"""Studies that are a sweep with one JSON file of measurements in each run's folder: reading them, their claims, their page and its tables."""
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

from vmamba_jax.core import files, statistics
from vmamba_jax.reports import claims, grids, page
from vmamba_jax.reports.displayed import Displayed
from vmamba_jax.reports.sweep.results import Sweep, read_sweep


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one run has.

    Attributes:
        group, seed: of the run.
        content: of its JSON file.
    """
    group: str
    seed: int
    content: Mapping


@dataclasses.dataclass(frozen=True)
class Study:
    """A study: its sweep, and the findings of the runs that are done."""
    sweep: Sweep
    findings: Sequence[Finding]

    def of(self, group):
        """{seed: finding} of a group."""
        return {each.seed: each for each in self.findings if each.group == group}

    @property
    def groups(self):
        """Groups with findings, in the sweep's order."""
        return [group for group in self.sweep.groups if self.of(group)]

    def mean(self, group, value):
        """`statistics.mean_interval` over a group's seeds of value(content)."""
        return statistics.mean_interval([value(each.content) for each in self.of(group).values()])


@dataclasses.dataclass(frozen=True)
class ReadStudy(Displayed, Study):
    """What `read` returns; render: the function (study, commands=()) -> text of its page."""
    render: Callable

    def html(self):
        """The page as text."""
        return self.render(self)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence about a value, or about its difference between two groups.

    Attributes:
        sentence: what is seen if the value is above 0.
        value: content of a run -> number.
        group, against: the groups; against "": the value itself.
        unit: "points" (accuracies) or "" (numbers).
    """
    sentence: str
    value: Callable
    group: str
    against: str = ""
    unit: str = "points"

    def judge(self, study):
        """The claim with its judgement, see `claims.judge`; None if no seed has both groups."""
        ours, others = study.of(self.group), study.of(self.against) if self.against else None
        seeds = [seed for seed in ours if others is None or seed in others]
        if not seeds:
            return None
        values = [self.value(ours[seed].content) - (self.value(others[seed].content) if others is not None else 0.0) for seed in seeds]
        return {"sentence": self.sentence, "group": self.group, "against": self.against, "unit": self.unit,
                **claims.judge(values, claims.MARGIN if self.unit == "points" else 0.0)}


def read(folder, file, render):
    """The `ReadStudy` in a folder, whose runs have `file`; render: of it. Raises FileNotFoundError if the folder holds none."""
    sweep = read_sweep(pathlib.Path(folder))
    found = [(each, files.read_json(sweep.folder / each.name / file)) for each in sweep.done]
    return ReadStudy(sweep, [Finding(each.group, each.seed, content) for each, content in found if content is not None], render)


def judged(study, made):
    """The judgements of the claims that some seed has the groups of."""
    return [found for claim in made if (found := claim.judge(study)) is not None]


def claims_table(found):
    """(columns, rows) of judgements, cells as text."""
    rows = [[each["sentence"], " \u2212 ".join(filter(None, (each["group"], each["against"]))), each["n"], claims.value(each), claims.interval(each),
             each["verdict"]] for each in found]
    return ["claim", "groups", "seeds", "value", "95 % interval", "verdict"], rows


def percent(found):
    """A mean of accuracies with its standard deviation over seeds, in percent."""
    return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['sd']:.1f}" if found["n"] > 1 else "")


def html(name, study, sections, found, drawn, about, commands=()):
    """The page of a study as text.

    Args:
        sections: [(heading, columns, rows), ...], cells as text.
        found: judgements, of `judged`.
        drawn: [(SVG text, caption), ...].
        about: a paragraph under the figures.
        commands: shell lines that reproduce it.
    """
    return page.draw(
        "claims.html", title=study.sweep.index["config"]["title"], about=about, commands=commands, environment=study.sweep.environment,
        done=bool(study.findings), claimed=claims_table(found), sections=[(heading, *grids.turned(columns, rows)) for heading, columns, rows in sections],
        drawn=drawn, sweep=study.sweep, name=name, missing=[each for each in study.sweep.runs if not each.done])


def write(folder, name, study, sections, found, commands=()):
    """Write NAME.html, NAME.json (claims and tables) and NAME.md to a study's folder; arguments as of `html`. Returns the page's path."""
    folder, sections = pathlib.Path(folder), [("Claims", *claims_table(found)), *sections]
    files.write_json(folder / f"{name}.json", {"claims": found, "tables": [{"heading": heading, "columns": columns, "rows": rows}
                                                                           for heading, columns, rows in sections]})
    page.put(folder / f"{name}.md", markdown(sections))
    return page.put(folder / f"{name}.html", study.render(study, commands))


def markdown(sections):
    """The sections as GitHub Markdown."""
    return "\n".join(f"## {heading}\n\n{claims.markdown_tables([(columns, rows)])}" for heading, columns, rows in sections)
