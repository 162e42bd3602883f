"""The tables of a page as columns and rows, and as CSV, Markdown and LaTeX."""
import csv
import html.parser
import io
import re

from vmamba_jax.core.results import Table

HEADINGS = ("h1", "h2", "h3", "h4")


class _Reader(html.parser.HTMLParser):
    """Collects the tables of a page; tables within tables, the parts of a table for print and the text of drawings are left out."""

    def __init__(self, text):
        super().__init__()
        self.tables, self._heading, self._depth, self._svg, self._hidden = [], "", 0, 0, 0
        self._rows, self._row, self._cell, self._head, self._caption = [], None, None, None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if self._hidden or (tag == "div" and dict(attrs).get("aria-hidden") == "true"):
            self._hidden += tag == "div"
        elif tag == "svg":
            self._svg += 1
        elif tag == "table":
            self._depth += 1
            if self._depth == 1:
                self._rows, self._caption = [], None
        elif self._depth == 1 and tag == "tr":
            self._row = []
        elif self._depth == 1 and tag in ("td", "th") and self._row is not None:
            span = dict(attrs).get("colspan") or "1"
            self._cell = {"text": [], "header": tag == "th", "span": int(span) if span.isdigit() else 1}
        elif tag in HEADINGS or (tag == "caption" and self._depth == 1):
            self._head = []
        elif self._cell is not None:
            self._cell["text"].append(" ")

    def handle_endtag(self, tag):
        if self._hidden:
            self._hidden -= tag == "div"
        elif tag == "svg":
            self._svg -= 1
        elif tag == "table":
            self._depth -= 1
            if self._depth == 0 and self._rows:
                self.tables.append(_table(self._caption or self._heading, self._rows))
        elif self._depth == 1 and tag == "tr" and self._row is not None:
            self._rows, self._row = self._rows + [self._row] if self._row else self._rows, None
        elif self._depth == 1 and tag in ("td", "th") and self._cell is not None:
            text = " ".join("".join(self._cell["text"]).split())
            self._row += [(text, self._cell["header"])] + [("", self._cell["header"])] * (self._cell["span"] - 1)
            self._cell = None
        elif self._head is not None and tag in (*HEADINGS, "caption"):
            text, self._head = " ".join("".join(self._head).split()), None
            if tag == "caption":
                self._caption = text
            elif not self._depth:
                self._heading = text

    def handle_data(self, data):
        if self._svg or self._hidden:
            return
        for part in (self._head, self._cell["text"] if self._cell is not None else None):
            if part is not None:
                part.append(data)


def _table(heading, rows):
    """A `Table` of rows of (text, whether it is a header): the first row has the columns if all its cells are headers, or it is the only kind of row."""
    width = max(map(len, rows))
    padded = [[text for text, _ in row] + [""] * (width - len(row)) for row in rows]
    named = all(header for _, header in rows[0])
    return Table(heading, padded[0] if named else [], padded[1:] if named else padded)


def read(text):
    """[`Table`, ...] of a page of HTML, in order."""
    return _Reader(text).tables


def as_csv(table):
    """RFC 4180: the columns and the rows, with text as the page shows it."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([*([table.columns] if table.columns else []), *table.rows])
    return buffer.getvalue()


def as_markdown(table):
    """A GitHub Markdown table; a table without names of columns gets empty ones, which Markdown needs."""
    from vmamba_jax.reports.sweep.summaries import markdown
    columns = table.columns or [""] * len(table.rows[0])
    line = lambda cells: f"| {' | '.join(map(markdown, cells))} |"
    return "\n".join([line(columns), f"|{'---|' * len(columns)}", *map(line, table.rows)]) + "\n"


def as_latex(table):
    """A tabular for `booktabs`, the first column to the left and the others to the right."""
    from vmamba_jax.reports.sweep.summaries import latex
    width = len(table.columns or table.rows[0])
    line = lambda cells: " & ".join(map(latex, cells)) + r" \\"
    head = [line(table.columns), r"\midrule"] if table.columns else []
    return "\n".join([f"% {' '.join(table.heading.split())}", rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule", *head, *map(line, table.rows), r"\bottomrule",
                      r"\end{tabular}"]) + "\n"


def file_name(number, text, words=6):
    """"03_accuracy_under_pgd": a name for a file from a number and the first words of a text."""
    return "_".join([f"{number:02d}", *re.findall(r"[a-z0-9]+", text.lower())[:words]])
