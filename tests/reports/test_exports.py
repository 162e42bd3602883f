"""Tables and figures beside a page, and result objects in notebooks."""
import csv
import sys
import types

import pytest
from PIL import Image

from vmamba_jax import reports
from vmamba_jax.reports import exports, figures, page, page_tables
from vmamba_jax.reports.displayed import Displayed

PAGE = """<h2>A &amp; B</h2><table><thead><tr><th>name</th><th colspan="2">acc. <b>%</b></th></tr></thead>
<tr><td>x_1</td><td>97.1 <span>[96, 98]</span></td><td>&minus;1</td></tr></table>
<svg><text>not a <tspan>cell</tspan></text></svg><table><caption>Facts</caption><tr><th>seed</th><td>0</td></tr></table>"""


def test_tables_of_a_page():
    first, second = page_tables.read(PAGE)
    assert first == ("A & B", ["name", "acc. %", ""], [["x_1", "97.1 [96, 98]", "\u22121"]])
    assert second == ("Facts", [], [["seed", "0"]])
    assert list(csv.reader(page_tables.as_csv(first).splitlines())) == [first.columns, *first.rows]
    assert page_tables.as_markdown(first).splitlines() == ["| name | acc. % |  |", "|---|---|---|", r"| x\_1 | 97.1 \[96, 98\] | −1 |"]
    assert r"x\_1 & 97.1 [96, 98] & $-$1 \\" in page_tables.as_latex(first) and r"\begin{tabular}{lrr}" in page_tables.as_latex(first)
    assert page_tables.as_markdown(second).startswith("|  |  |\n") and r"\midrule" not in page_tables.as_latex(second)
    assert page_tables.file_name(3, "Accuracy, in %: PGD-10 & more of this and that") == "03_accuracy_in_pgd_10_more_of"


def drawn():
    figure = figures.Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [1, 0])
    return figures.svg(figure, "A line, falling")


def test_files_beside_a_page(tmp_path):
    """Only figures that the page shows, only pages of the folder itself, and nothing of an earlier version of the page."""
    with reports.exported(tmp_path):
        drawn()
        page.put(tmp_path / "page.html", PAGE + drawn())
        (tmp_path / "runs").mkdir()
        page.put(tmp_path / "runs" / "other.html", PAGE + drawn())
        page.put(tmp_path / "page.md", "text")
    tables, pictures = tmp_path / "page_tables", tmp_path / "page_figures"
    assert sorted(path.name for path in tables.iterdir()) == [f"{name}.{kind}" for name in ("01_a_b", "02_facts") for kind in ("csv", "md", "tex")]
    assert (tables / "01_a_b.csv").read_bytes() == page_tables.as_csv(page_tables.read(PAGE)[0]).encode()
    assert sorted(path.name for path in pictures.iterdir()) == ["01_a_line_falling.pdf", "01_a_line_falling.png"]
    assert (pictures / "01_a_line_falling.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(pictures / "01_a_line_falling.png") as picture:
        assert picture.width > 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.md", "page_figures", "page_tables", "runs"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other.html"]
    (tables / "notes.md").write_text("mine")
    with reports.exported(tmp_path):
        page.put(tmp_path / "page.html", "no table")
    assert [path.name for path in tables.iterdir()] == ["notes.md"] and not list(pictures.iterdir())


def test_nothing_is_kept_outside(tmp_path):
    page.put(tmp_path / "page.html", PAGE + drawn())
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"] and exports._active.get() is None


class Shown(Displayed):
    """A result whose page is `PAGE`, with the last table twice."""

    def html(self):
        return PAGE + PAGE[PAGE.rindex("<table>"):]


def test_result_in_a_notebook(monkeypatch):
    shown = Shown()
    assert shown._repr_html_().startswith('<iframe srcdoc="&lt;h2&gt;A &amp;amp; B') and list(shown.tables()) == ["A & B", "Facts", "Facts (2)"]
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns)))
    first = page_tables.read(PAGE)[0]
    assert shown.to_dataframe() == shown.to_dataframe("A & B") == (first.rows, first.columns) and shown.to_dataframe("Facts (2)") == ([["seed", "0"]], None)
    with pytest.raises(KeyError, match="heading='nothing': expected one of 'A & B', 'Facts'"):
        shown.to_dataframe("nothing")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        shown.to_dataframe()


def test_every_result_has_a_page():
    kinds = (reports.Study, reports.Sweep, reports.Analysis, reports.AdsStudy, reports.Mender, reports.Dense)
    assert all(issubclass(kind, Displayed) and callable(getattr(reports, kind.render_name)) for kind in kinds)
