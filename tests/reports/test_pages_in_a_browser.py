"""Pages in a real browser: nothing lies outside of the window at three widths, on paper or in the PDF; pictures open."""
import collections
import pathlib
import unicodedata

import pytest

from tests.helpers import browser, page_cuts, pdf_text, wide_pages
from vmamba_jax import reports

WIDTHS = (1200, 800, 400)
PAPER = 718   # CSS pixels between the margins of A4, which the browser sets to 1 cm
SLACK = 1.0   # points
COMMITTED = sorted((pathlib.Path(__file__).parents[2] / "docs" / "results").glob("*/*.html"))
WIDE = '<table><tr>' + "".join(f"<td>column_number_{i}</td>" for i in range(20)) + "</tr></table>"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tab():
    with browser.Browser(browser.browser_or_skip()) as found:
        yield found


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """{name: page of eight models}."""
    folder = tmp_path_factory.mktemp("wide")
    runs = wide_pages.runs(folder / "runs")
    return {"report": reports.write(folder / "report.html", runs, title="Eight models"),
            "training": reports.write_training(folder / "training.html", runs[0]),
            "study": reports.write_study(folder / "study.html", wide_pages.study(folder / "study"))}


def cuts(tab, page):
    """{where: what is cut there} of a page, with the letters that its PDF lacks and those that it has outside of their region."""
    found = {}
    for width in WIDTHS:
        tab.open(page, width)
        found[width] = page_cuts.cut(tab)
    tab.as_printed(PAPER)
    found["print"] = page_cuts.cut(tab, printed=True)
    shown = collections.Counter(unicodedata.normalize("NFKC", "".join(page_cuts.text(tab).split())))
    glyphs = [glyph for page in pdf_text.glyphs(tab.pdf()) for glyph in page]
    written = collections.Counter("".join(glyph.text for glyph in glyphs))
    found["not in the PDF"] = {letter: n - written[letter] for letter, n in shown.items() if n > written[letter]}
    found["outside in the PDF"] = [glyph for glyph in glyphs if glyph.left < glyph.clip_left - SLACK or glyph.right > glyph.clip_right + SLACK]
    return {where: what for where, what in found.items() if what}


@pytest.mark.parametrize("page", COMMITTED, ids=lambda page: page.parent.name)
def test_nothing_of_a_committed_page_is_cut(tab, page):
    assert cuts(tab, page) == {}


@pytest.mark.parametrize("name", ["report", "training", "study"])
def test_nothing_of_a_page_of_many_models_is_cut(tab, wide, name):
    assert cuts(tab, wide[name]) == {}


def test_wide_tables_are_in_parts_and_details_open_in_print(tab, wide):
    columns = "[...document.querySelectorAll('table.grid:not(details *)')].filter(t => t.getClientRects().length).map(t => t.rows[0].cells.length - 1)"
    tab.open(wide["report"], 1200)
    assert set(tab.run(columns)) == {8, 7}  # differences are from the first model
    opened = "[...document.querySelectorAll('details:not(.thumb)')].map(d => [...d.querySelectorAll('table')].some(t => t.checkVisibility()))"
    assert not any(tab.run(opened))
    tab.as_printed(PAPER)
    assert set(tab.run(columns)) == {4, 3} and all(tab.run(opened)) and len(tab.run(opened)) > 8


def test_what_is_cut_is_found(tab, tmp_path):
    """A table without a container is cut on screens; one in a container on paper alone, and its letters are missing in the PDF."""
    page = tmp_path / "page.html"
    page.write_text(f"<body>{WIDE}")
    assert set(cuts(tab, page)) >= set(WIDTHS)
    page.write_text(f'<body><div style="overflow-x: auto">{WIDE}</div>')
    found = cuts(tab, page)
    assert "print" in found and "not in the PDF" in found and not set(WIDTHS) & set(found)
    page.write_text('<body><svg width="90" height="20"><text x="80" y="15">outside</text></svg><table><td style="max-width: 2em">wordthatislong</table>')
    tab.open(page, 400)
    assert [each.split(":")[0] for each in page_cuts.cut(tab)] == ["drawing", "cell"]


def test_picture_opens_over_the_page(tab, wide):
    tab.open(wide["study"], 800)
    side = "Math.round(document.querySelectorAll('.thumb img')[9].getBoundingClientRect().width)"
    before = tab.run(side)
    tab.run("document.querySelectorAll('.thumb > summary')[9].click()")
    box = tab.run("(() => { const box = document.querySelectorAll('.thumb img')[9].getBoundingClientRect();"
                  " return [box.left, box.top, innerWidth - box.right, innerHeight - box.bottom] })()")
    assert before < 80 and tab.run(side) > 600 and min(box) >= 0
    tab.run("document.querySelectorAll('.thumb > summary')[9].click()")
    assert tab.run(side) == before
