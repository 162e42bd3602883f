"""What a measurement returns: a dict, a list of rows or a record that a notebook displays as tables and pandas reads."""
import dataclasses
import html
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

ROWS, COLUMNS = 10, 12  # of a table that a notebook displays; `to_dataframe` has all
FIGURES = "result"      # heading of the table of single values


class Table(NamedTuple):
    """One table of a result or of a page.

    Attributes:
        heading: its name; of a page's table the text of its caption, or of the heading above it.
        columns: names of the columns; empty if the table has no row of headers.
        rows: rows of cells. Of a page, text as it shows it; a cell over several columns is followed by empty ones.
    """
    heading: str
    columns: list
    rows: list


class Shown:
    """Base class of results: tables, which notebooks display and pandas reads. A subclass has `tables`."""

    def tables(self):
        """{heading: `Table`}, the most important first."""
        raise NotImplementedError

    def to_dataframe(self, heading=None):
        """A table of the result as a pandas DataFrame.

        Args:
            heading: of the table, see `tables`; None: the first table.

        Raises:
            KeyError: no table of this heading; the message lists them.
            ImportError: pandas is not installed: `pip install pandas`.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe needs pandas: pip install pandas") from error
        found = self.tables()
        if not found:
            raise KeyError("heading=None: expected a result with a table; it has none")
        if heading is not None and heading not in found:
            raise KeyError(f"heading={heading!r}: expected one of {', '.join(map(repr, found))}")
        table = found[next(iter(found)) if heading is None else heading]
        return pandas.DataFrame(table.rows, columns=table.columns or None)

    def _repr_html_(self):
        """The first rows and columns of every table."""
        return "\n".join(map(_as_html, self.tables().values()))


class Result(Shown, dict):
    """A dict of what was measured.

    Its tables are one of the single values, one for each array and list of one or two dimensions, for each list of dicts and for each dict of dicts.

    Args:
        content: {name: value}.
        joined: {heading: names of arrays of equal length} that are the columns of one table; names without an entry are skipped.
    """

    def __init__(self, content=(), /, **joined):
        super().__init__(content)
        self.joined = {heading: tuple(names) for heading, names in joined.items()}

    def tables(self):
        return tables_of(self, self.joined)


class Rows(Shown, list):
    """A list of dicts, one for each row of one table."""

    def tables(self):
        return {FIGURES: _of_rows(FIGURES, self)} if self else {}


class Record(Shown):
    """Base class of results that are dataclasses or named tuples: the tables are those of a `Result` of the fields."""

    def tables(self):
        names = getattr(self, "_fields", None) or [field.name for field in dataclasses.fields(self)]  # pyrefly: ignore
        return tables_of({name: getattr(self, name) for name in names})


def tables_of(content, joined=None):
    """The tables of a `Result` with this content."""
    single, found, skipped = {}, {}, {name for names in (joined or {}).values() for name in names}
    for name, value in content.items():
        if name not in skipped:
            _sort(str(name), value, single, found)
    for heading, names in (joined or {}).items():
        if columns := [name for name in names if name in content]:
            rows = zip(*(_column(content[name]) for name in columns), strict=True)
            found[heading] = Table(heading, ["index", *map(str, columns)], [[i, *row] for i, row in enumerate(rows)])
    return ({FIGURES: Table(FIGURES, list(single), [list(single.values())])} if single else {}) | found


def _sort(name, value, single, found):
    """Put a value into `single`, {column: cell}, or into `found`, {heading: `Table`}."""
    if isinstance(value, Mapping) and not (value and all(isinstance(each, Mapping) for each in value.values())):
        for key, each in value.items():
            _sort(f"{name}.{key}", each, single, found)
    elif isinstance(value, Mapping):
        found[name] = _of_rows(name, [{"name": key} | dict(each) for key, each in value.items()])
    elif isinstance(value, list | tuple) and value and all(isinstance(each, Mapping) for each in value):
        found[name] = _of_rows(name, value)
    elif (table := None if _is_interval(name, value) else _of_array(name, value)) is not None:
        found[name] = table
    else:
        single.update(_cells(name, value))


def _of_array(name, value):
    """The `Table` of an array or list of one or two dimensions; None for anything else."""
    if not isinstance(value, list | tuple) and not hasattr(value, "__array__"):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # rows of several lengths
        return None
    if array.ndim not in (1, 2) or not array.size:
        return None
    columns = [name] if array.ndim == 1 else [str(k) for k in range(array.shape[1])]
    return Table(name, ["index", *columns], [[i, *(row if array.ndim == 2 else [row])] for i, row in enumerate(_column(value))])


def _column(values):
    """The entries of an array or list as a list of Python's numbers."""
    return [*map(_plain, values)] if isinstance(values, list | tuple) else np.asarray(values).tolist()


def _of_rows(heading, rows):
    """The `Table` of a list of dicts; a cell is None where a row lacks the column."""
    cells = [{name: cell for key, value in row.items() for name, cell in _cells(str(key), value).items()} for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    return Table(heading, columns, [[row.get(name) for name in columns] for row in cells])


def _cells(name, value):
    """{column: cell} of a value in a row: a dict has a column for each of its entries, an interval one for each end."""
    if isinstance(value, Mapping):
        return {column: cell for key, each in value.items() for column, cell in _cells(f"{name}.{key}", each).items()}
    if _is_interval(name, value):
        return {f"{name}.low": value[0], f"{name}.high": value[1]}
    return {name: _plain(value)}


def _is_interval(name, value):
    return name.endswith("interval") and isinstance(value, list | tuple) and len(value) == 2


def _plain(value):
    """A number of NumPy or JAX as Python's, an array of several as its dtype and shape, anything else as it is."""
    if not hasattr(value, "__array__"):
        return value
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else f"{array.dtype} {array.shape}"


def _as_html(table):
    """A table with its heading above it: one of a single row upright, any other cut to `ROWS` and `COLUMNS`."""
    rows, columns, cut = table.rows, table.columns, ""
    if len(rows) == 1:
        rows, columns = [list(pair) for pair in zip(columns, rows[0], strict=True)], []
    else:
        if len(rows) > ROWS or len(columns) > COLUMNS:
            cut = f" ({len(rows):,} rows, {len(columns):,} columns; the first are shown)"
        rows, columns = [row[:COLUMNS] for row in rows[:ROWS]], columns[:COLUMNS]
    lines = [[f"<th>{html.escape(str(name))}</th>" for name in columns]] if columns else []
    lines += [[f"<td>{html.escape(_text(cell))}</td>" for cell in row] for row in rows]
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f"<table><caption>{html.escape(table.heading + cut)}</caption>{body}</table>"


def _text(cell):
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
