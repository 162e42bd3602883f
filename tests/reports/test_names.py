"""Folder names of any kind on every page and figure: dollar signs, underscores, markup, quotes, other scripts, bytes that are no UTF-8."""
import html
import json
import re

import pytest

from tests.helpers import fake_runs, fake_study
from tests.helpers.html_page import Page
from vmamba_jax import reports
from vmamba_jax.reports import benchmarks
from vmamba_jax.reports.sweep import summaries

NAMES = ["budget_$5_vs_$6", "$", "a$b", "_hidden", "__x__", "<b>&amp;", "\"quoted\" 'too'", "with  spaces", "\u00fcn\u00ef \u5b9f\u9a13 \u2603", "100%", "\\frac{1}{2}",
         "a\udcffb", "{{ x }}", "#1 ~ ^"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if i % 4 == 0 else pytest.mark.slow) for i, name in enumerate(NAMES)])
def test_pages_of_a_run(tmp_path, name):
    run = reports.read_run(fake_runs.write(tmp_path, "pgd_at"), name)
    shown = name.encode("utf-8", "backslashreplace").decode()
    page = Page(reports.write(tmp_path / "report.html", [run], title=name, commands=[name]).read_text(encoding="utf-8"))
    assert page.open == [] and "".join(page.text).count(shown) >= 5
    assert Page(reports.write_training(tmp_path / "training.html", run, title=name).read_text(encoding="utf-8")).open == []


def test_page_of_a_study(tmp_path):
    folder = fake_study.write(tmp_path / "s")
    for (old, *_), new in zip(fake_study.MODELS, NAMES, strict=False):
        for file in (folder / "study.json", *folder.glob("cells/*.json")):
            file.write_text(file.read_text().replace(json.dumps(old), json.dumps(new)))
    for names in (NAMES[:4], NAMES[4:8], NAMES[8:12]):
        before, study = NAMES[:4], reports.read_study(folder)
        rename = dict(zip(before, names, strict=True))
        study = type(study)(folder, study.index | {"models": [m | {"label": rename.get(m["label"], m["label"])} for m in study.index["models"]]},
                            {(rename.get(model, model), probe): cell for (model, probe), cell in study.cells.items()})
        page = Page(reports.write_study(tmp_path / "study.html", study).read_text(encoding="utf-8"))
        for name in names:
            assert page.open == [] and name.encode("utf-8", "backslashreplace").decode() in "".join(page.text)


@pytest.mark.parametrize("name", NAMES)
def test_figure_of_a_benchmark(name):
    seconds = {"median": 1.0, "q1": 1.0, "q3": 1.0, "min": 1.0}
    run = {"kind": "benchmark", "device": {"platform": "tpu", "kind": name, "count": 1}, "records": [
        {"what": "model", "name": name, "backend": "ours", "pass": "forward", "batch": 1, "dtype": "float32", "images_per_s": 1.0},
        *({"what": "growth", "name": name, "pass": "forward", "batch": 1, "dtype": "float32", "tokens": n, "seconds": seconds} for n in (1, 2))]}
    assert html.escape(name.encode("utf-8", "backslashreplace").decode(), quote=False).replace("  ", " ") in benchmarks.figure(run).replace("  ", " ")


@pytest.mark.parametrize("name", NAMES)
def test_summaries(name):
    """No character of LaTeX or Markdown is left bare."""
    assert not re.search(r"(?<!\\)[$&#%_]", summaries.latex(name).replace("$_\\infty$", ""))
    assert not re.search(r"(?<!\\)[`*_<>|#$~]", summaries.markdown(name))
