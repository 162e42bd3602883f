"""What leaves a page: its tables as CSV, Markdown and LaTeX, and its figures as PDF and PNG, in folders beside it."""
import contextlib
import contextvars
import pathlib
import warnings

from vmamba_jax.core import files
from vmamba_jax.reports import page_tables

DPI = 200
_active = contextvars.ContextVar("exports", default=None)


class _Collected:
    """The folder whose pages are exported, and the figures that were drawn for the next page: [(inline SVG, text for screen readers, figure), ...]."""

    def __init__(self, folder):
        self.folder, self.drawn = pathlib.Path(folder).resolve(), []


@contextlib.contextmanager
def exported(folder):
    """A context in which every page that is written into `folder` itself is exported.

    PAGE.html gets `PAGE_tables/NN_<heading>.csv`, `.md` and `.tex` for each table, with cells as the page shows them, and `PAGE_figures/NN_<text>.pdf`
    and `.png` for each drawn figure. Photos and maps of pixels are images on the page and are not exported. Pages in folders below, such as those of a
    sweep's runs, are not exported.

    Args:
        folder: of the pages.
    """
    token = _active.set(_Collected(folder))
    try:
        yield
    finally:
        _active.reset(token)


def remember(text, alt, figure):
    """Keep a figure that was drawn as inline SVG `text`, for the page that holds it; outside of `exported` nothing happens."""
    if (collected := _active.get()) is not None:
        collected.drawn.append((text, alt, figure))


def beside(page, text):
    """Write the tables and figures of a page if it lies in the folder of `exported`; files of an earlier version of the page are replaced.

    Args:
        page: path of the page, already written.
        text: its HTML.
    """
    collected = _active.get()
    if collected is None or page.suffix != ".html" or page.resolve().parent != collected.folder:
        return
    shown = [(alt, figure) for svg, alt, figure in collected.drawn if svg in text]
    collected.drawn.clear()
    stem = page.with_suffix("")
    _empty(stem.with_name(f"{stem.name}_tables"), (".csv", ".md", ".tex"))
    _empty(stem.with_name(f"{stem.name}_figures"), (".pdf", ".png"))
    for number, table in enumerate(page_tables.read(text), 1):
        name = page_tables.file_name(number, table.heading)
        for suffix, content in ((".csv", page_tables.as_csv(table)), (".md", page_tables.as_markdown(table)), (".tex", page_tables.as_latex(table))):
            with files.atomic(stem.with_name(f"{stem.name}_tables") / f"{name}{suffix}") as part:
                part.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")
    for number, (alt, figure) in enumerate(shown, 1):
        _draw(figure, stem.with_name(f"{stem.name}_figures") / page_tables.file_name(number, alt))


def _empty(folder, suffixes):
    """Create a folder, without the numbered files of an earlier page."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in suffixes and old.name[:2].isdigit():
            old.unlink()


def _draw(figure, path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        for suffix, metadata in ((".pdf", {"CreationDate": None, "Producer": None, "Creator": None}), (".png", {"Software": None})):
            with files.atomic(path.with_suffix(suffix)) as part, open(part, "wb") as file:
                figure.savefig(file, format=suffix[1:], dpi=DPI, metadata=metadata, facecolor="white", bbox_inches="tight")
