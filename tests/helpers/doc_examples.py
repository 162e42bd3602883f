"""The Python code of a documentation page."""
import pathlib
import re

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"


def blocks(page):
    """The Python blocks of docs/<page>, in order."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(code, page, scope=None):
    """The names that the code defines."""
    scope = {} if scope is None else scope
    exec(compile(code, page, "exec"), scope)
    return scope
