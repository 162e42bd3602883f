"""The code of every tutorial runs as it stands, each in a process of its own; its assertions are what its text says. `make docs` runs them as notebooks."""
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def code(page):
    """The cells of a tutorial as one program."""
    return "\n".join(re.findall(r"```{code-cell} ipython3\n(.*?)```", page.read_text(), re.DOTALL))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_form(page):
    """Jupytext's header, so that it opens as a notebook; code that compiles; at least one assertion; no line that a page would cut."""
    assert page.read_text().startswith("---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\n")
    compile(code(page), page.name, "exec")
    assert code(page).count("assert") >= 2 and max(map(len, page.read_text().splitlines())) <= 160


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_runs(page, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", code(page)], cwd=tmp_path, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
