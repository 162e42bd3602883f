"""The page of a study: every model under every probe, and the verdicts on the paper's claims, from the cells of `experiments.study`."""
import dataclasses
import functools
import pathlib
from collections.abc import Mapping

from vmamba_jax.core import files
from vmamba_jax.reports import page
from vmamba_jax.reports.displayed import Displayed
from vmamba_jax.reports.study import claims as study_claims
from vmamba_jax.reports.study import figures as study_figures
from vmamba_jax.reports.study import tables

MISSING = {"status": "failed", "reason": "the file of the cell is missing; the same command computes it again"}


@dataclasses.dataclass(frozen=True)
class Study(Displayed):
    """Contents of a study's folder: study.json, and every cell by (model, probe)."""
    render_name = "render_study"
    folder: pathlib.Path
    index: Mapping
    cells: Mapping

    probes = property(lambda self: self.index["config"]["probes"])
    margin = property(lambda self: self.index["config"]["margin"])
    models = property(lambda self: [model for model in self.index["models"] if "error" not in model], doc="Facts of the models that could be read.")

    def labels(self, kind=None):
        """Names of the models; of one kind if it is given."""
        return [model["label"] for model in self.models if kind in (None, model["kind"])]

    def cell(self, model, probe):
        """A cell; {} if there is none."""
        return self.cells.get((model, probe), {})

    def rows(self, model, probe):
        """The rows of a cell; [] if it did not run."""
        return self.cell(model, probe).get("rows", [])

    def of_kind(self, kind):
        return [name for name, probe in self.probes.items() if probe["kind"] == kind]

    def in_group(self, group):
        return [name for name, probe in self.probes.items() if probe.get("group") == group]

    def title(self, probe):
        return tables.title(self, probe)

    @functools.cached_property
    def claims(self):
        """Claims with verdicts, of `study_claims.claims`."""
        return study_claims.claims(self)


def read_study(folder) -> Study:
    """Read a study's folder. Raises FileNotFoundError if it has no study.json."""
    folder = pathlib.Path(folder)
    if not (folder / "study.json").is_file():
        raise FileNotFoundError(f"folder={folder}: expected study.json in it; run `python -m experiments.study --workdir {folder}` first")
    index = files.read_json(folder / "study.json")
    cells = {(line["model"], line["probe"]): (files.read_json(folder / line["file"]) or MISSING) | {"file": line["file"]}
             for line in index["cells"]}
    return Study(folder, index, cells)


def render_study(study, *, title=None, commands=()):
    """The page as text. commands: shell lines that reproduce it. Links are relative to the study's folder."""
    return page.draw(
        "study.html", title=title or _title(study), about=_about(study), models=study.models, facts=tables.facts(study),
        claims=[(heading, compared) for heading, listed in study.claims if (compared := [claim for claim in listed if claim.comparisons])],
        uncompared=[claim for _, listed in study.claims for claim in listed if not claim.comparisons],
        rule=study_claims.RULE.format(margin=100 * study.margin), floor=100 * study_claims.FLOOR,
        sections=study_figures.sections(study), pictures=tables.pictures(study), absent=tables.absent(study),
        environment=tables.environment(study), commands=commands, links=tables.links(study))


def write_study(path, study, **options):
    """Write the page atomically to `path`; options as of `render_study`. Returns the path."""
    return page.put(pathlib.Path(path), render_study(study, **options))


def study_text(study):
    """The verdicts and the table of attacks for a terminal."""
    verdicts = [f"{claim.verdict:>18}: {claim.sentence}" for _, claims in study.claims for claim in claims]
    count = {status: sum(line["status"] == status for line in study.index["cells"]) for status in ("done", "not applicable", "failed")}
    counts = ", ".join(f"{n} {status}" for status, n in count.items() if n)
    return "\n".join([*tables.text(study), "", *verdicts, "", f"cells: {counts}"])


def _title(study):
    n = len(study.models)
    return f"Robustness of {n} model{'s' if n != 1 else ''} on {study.index.get('data', {}).get('name', 'no data')}"


def _about(study):
    data = study.index.get("data")
    if data is None:
        return "No model could be read."
    images = f"{data['examples']:,} images of {data['name']} ({data['split']}), {' x '.join(map(str, data['shape'] or ('varying size',)))}"
    return f"{images}, the same for every model; subset {data['fingerprint']}. Run on {study.index['device']}."
