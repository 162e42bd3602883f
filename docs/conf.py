"""Settings of the documentation's site: `make docs` builds it into docs/_build/html, offline and from installed packages alone."""
import os
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "tools")]

import api_pages  # noqa: E402
import docstrings  # noqa: E402
import family_pages  # noqa: E402
import jax  # noqa: E402,F401  (before the notebooks' kernels ask for it, so that a missing installation fails here)

from vmamba_jax.version import __version__  # noqa: E402

project = "vmamba_jax"
author = "the vmamba_jax contributors"
copyright = author
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}
exclude_patterns = ["_build", "_readme.md", "tools", "results/*/*", "**/.ipynb_checkpoints"]
html_theme = "sphinx_book_theme"
html_title = f"vmamba_jax {release}"
html_theme_options = {"show_toc_level": 2, "use_download_button": True, "use_fullscreen_button": False}
html_static_path = []
nitpicky = False

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
# Headings of a notebook's text and of tables that programs write may skip a level.
suppress_warnings = ["myst.header", "myst.strikethrough"]

# Notebooks run at every build; an error or a cell of more than three minutes fails the build. NOTEBOOKS=off shows their text and code alone.
nb_execution_mode = os.environ.get("NOTEBOOKS", "force")
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_execution_show_tb = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
# A list of names as text: a link from the name of an attribute would lead to any attribute of that name.
napoleon_custom_sections = ["Source", "Sources", ("Attributes", "params_style"), ("Fields", "params_style"), ("Metrics", "params_style")]
napoleon_use_rtype = False


def save_readme():
    """docs/_readme.md: the README with its links as seen from docs/, which index.md includes."""
    text = (HERE.parent / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    for name in ("CONTRIBUTING", "CHANGELOG"):
        text = text.replace(f"]({name}.md)", f"]({name.lower()}.md)")
    (HERE / "_readme.md").write_text(text.replace("](CITATION.cff)", "](../CITATION.cff)"), encoding="utf-8")


def plain_docstring(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code`; this runs before napoleon's sections."""
    lines[:] = docstrings.restructured(lines)


def copy_results(app, exception):
    """The pages of results are files of their own beside the gallery."""
    if exception is None and app.builder.format == "html":
        for page in (HERE / "results").glob("*/*.html"):
            target = pathlib.Path(app.outdir) / page.relative_to(HERE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, target)


def setup(app):
    api_pages.write(HERE / "api")
    family_pages.write(HERE / "families")
    save_readme()
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
    app.connect("build-finished", copy_results)
