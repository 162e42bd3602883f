"""Result objects in notebooks: the page in the output of a cell, and its tables as data frames."""
import html

from vmamba_jax.core.results import Shown
from vmamba_jax.reports import page_tables

HEIGHT = 700


class Displayed(Shown):
    """Base class of what `read_*` returns. A subclass names its page's function in `vmamba_jax.reports` as `render_name`."""
    render_name = ""

    def html(self):
        """The page as text."""
        from vmamba_jax import reports
        return getattr(reports, self.render_name)(self)

    def tables(self):
        """{heading: `core.results.Table`} of the page, cells as text; headings that are repeated are numbered."""
        found = {}
        for table in page_tables.read(self.html()):
            name, number = table.heading, 2
            while name in found:
                name, number = f"{table.heading} ({number})", number + 1
            found[name] = table
        return found

    def _repr_html_(self):
        """The page within a frame, so that its style does not reach the notebook."""
        return f'<iframe srcdoc="{html.escape(self.html())}" style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
