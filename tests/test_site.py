"""The documentation's pages, links, generated parts and release files, without building the site."""
import importlib
import json
import pathlib
import re

import pytest

from vmamba_jax.version import __version__

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md",
         *(page for page in sorted(DOCS.glob("**/*.md")) if not {"_build", "_readme.md", "api", "families"} & set(page.relative_to(DOCS).parts))]


@pytest.fixture
def tools(monkeypatch):
    """Imports a module of docs/tools by name."""
    monkeypatch.syspath_prepend(str(DOCS / "tools"))
    return importlib.import_module


def prose(page):
    """A page's text without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The names that links to a page's headings have, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page(page):
    """Every relative link and picture leads to a file of the repository, and to a heading that the file has."""
    text = prose(page)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:href|src)="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


def test_links_that_are_wrong_are_found(tmp_path):
    (tmp_path / "page.md").write_text("# A heading, `code`\n[a](other.md)\n")
    assert anchors(tmp_path / "page.md") == {"a-heading-code"}
    with pytest.raises(AssertionError):
        test_links_of_a_page(tmp_path / "page.md")


def test_every_page_is_in_the_index():
    index = (DOCS / "index.md").read_text()
    listed = {line.strip() for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for line in block.splitlines() if line.strip() and line[0] != ":"}
    written = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES if DOCS in page.parents and len(page.relative_to(DOCS).parts) < 3} - {"index"}
    assert listed == written | {"api/index", "families/index"}


def test_public_names_are_those_of_the_list(tools):
    """A name may leave the list only after a release in which it warns; one that is new is added by the tool."""
    names = tools("public_names")
    golden = json.loads(names.GOLDEN.read_text())
    found = names.public_names()
    gone, new = sorted(set(golden["names"]) - set(found)), sorted(set(found) - set(golden["names"]))
    assert not gone and not new, f"gone: {gone}; new: {new}; run python docs/tools/public_names.py --write"
    assert golden["version"] == __version__


def test_public_names_have_docstrings(tools):
    """Every public function and class says what it gives: the API reference has nothing else to show."""
    missing = [f"{path}.{name}" for path, (module, names) in tools("public_names").public_modules().items() for name in names
               if callable(value := getattr(module, name)) and not (getattr(value, "__doc__", None) or "").strip()]
    assert not missing


def test_docstrings_become_markup(tools):
    """Code is literal, indented code a block, results a field, and hanging indents a list; nothing else is markup."""
    text = """First `x*y` of *all*, a_ and b_c.

    code = f(*args)
    more

Args:
    a: of `Run`s,
        two lines.
    options: those of
        one: first
        two: second.

Returns:
    A dict.
    "a": long
        line.

Raises:
    ValueError: never."""
    assert tools("docstrings").restructured(text.splitlines()) == [
        "First ``x*y`` of \\*all\\*, a\\_ and b_c.", "", ".. code-block:: text", "", "    code = f(*args)", "    more", "",
        "Args:", "    a: of ``Run``\\ s,", "        two lines.", "    options: those of", "        one: first", "        two: second.", "",
        ":returns:", "    A dict.", "    ", "    - \"a\": long", "      line.", "", "Raises:", "    ValueError: never.", ""]


def test_links_of_the_built_site(tools, tmp_path):
    """A file or an anchor that is missing is found; results and the theme's templates are only targets."""
    (tmp_path / "results" / "a").mkdir(parents=True)
    (tmp_path / "_static").mkdir()
    (tmp_path / "index.html").write_text('<a href="other.html#here">x</a><a href="#top" id="top">x</a><a href="https://x.org/y">x</a>'
                                         '<a href="other.html#gone">x</a><img src="gone.png"><a href="results/a/page.html">x</a>')
    (tmp_path / "other.html").write_text('<h1 id="here">x</h1><a href="index.html">x</a>')
    for path in (tmp_path / "results" / "a" / "page.html", tmp_path / "_static" / "template.html"):
        path.write_text('<a href="raw.json">x</a>')
    assert tools("check_site").broken(tmp_path) == [("index.html", "other.html#gone"), ("index.html", "gone.png")]


def test_gallery_is_current(tools):
    gallery = tools("gallery")
    for path, content in gallery.files().items():
        assert path.exists() and path.read_bytes() == content, f"{path.relative_to(ROOT)}: run python docs/tools/gallery.py"
    assert {folder.name for folder in gallery.folders()} == set(re.findall(r"^## (\w+)$", (DOCS / "results" / "README.md").read_text(), re.MULTILINE))


def test_release_files_name_the_version():
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"({__version__})" in (ROOT / "CHANGELOG.md").read_text()
    for template in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"):
        assert template.read_text().startswith("---\nname: ")
    assert all("python -m vmamba_jax info" in (ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text() for name in ("bug.md", "speed.md"))


def test_files_that_the_guide_for_contributors_names():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = [path for path in re.findall(r"`((?:vmamba_jax|pallas_kernels|experiments|configs|tests|docs)/[\w/.]+)`", text) if "<" not in path]
    assert len(paths) >= 25 and all((ROOT / path).exists() for path in paths)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([\w-]+)", text)) <= set(targets)
    names = re.findall(r"`(test_\w+\.py)`", text)
    assert len(names) >= 8 and all(list((ROOT / "tests").rglob(name)) for name in names)
