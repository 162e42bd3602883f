"""Result objects in notebooks: the page in the output of a cell, and its tables as data frames."""
import html

from vmamba_jax.reports import page_tables

HEIGHT = 700


class Displayed:
    """Base class of what `read_*` returns. A subclass names its page's function in `vmamba_jax.reports` as `render_name`."""
    render_name = ""

    def html(self):
        """The page as text."""
        from vmamba_jax import reports
        return getattr(reports, self.render_name)(self)

    def tables(self):
        """{heading: `page_tables.Table`} of the page; headings that are repeated are numbered."""
        found = {}
        for table in page_tables.read(self.html()):
            name, number = table.heading, 2
            while name in found:
                name, number = f"{table.heading} ({number})", number + 1
            found[name] = table
        return found

    def to_dataframe(self, heading=None):
        """A table of the page as a pandas DataFrame, cells as text.

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
            raise KeyError("heading=None: expected a page with a table; it has none yet")
        if heading is not None and heading not in found:
            raise KeyError(f"heading={heading!r}: expected one of {', '.join(map(repr, found))}")
        table = found[next(iter(found)) if heading is None else heading]
        return pandas.DataFrame(table.rows, columns=table.columns or None)

    def _repr_html_(self):
        """The page within a frame, so that its style does not reach the notebook."""
        return f'<iframe srcdoc="{html.escape(self.html())}" style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
