"""The pages of the API reference: one for each public module, with an entry for each of its public names, from the docstrings."""
import inspect
import pathlib

import docstrings
import public_names
from pages import save


def write(folder):
    """Write the pages and their index into a folder."""
    modules, shown = public_names.public_modules(), set()
    pages = {f"{path}.rst": page(path, module, names, shown) for path, (module, names) in modules.items()}
    save(pathlib.Path(folder), pages | {"index.rst": index(modules)})


def index(modules):
    """The page that lists the modules with the first line of each docstring."""
    lines = ["API reference", "=============", "", "Public names are those that ``__all__`` lists. Each entry has the signature, the docstring with the shapes of",
             "arrays, and a link to the source.", "", ".. list-table::", "   :widths: 30 70", ""]
    for path, (module, _) in modules.items():
        lines += [f"   * - :doc:`{path}`", f"     - {docstrings.restructured([summary(module)])[0]}"]
    return "\n".join([*lines, "", ".. toctree::", "   :hidden:", "", *(f"   {path}" for path in modules), ""])


def page(path, module, names, shown=None):
    """The page of one module: its docstring, and an entry for each public name in alphabetical order.

    Args:
        shown: identities of the classes that other pages have, which get no second place in the index; the page adds its own.
    """
    shown = set() if shown is None else shown
    lines = [path, "=" * len(path), "", *docstrings.restructured((inspect.getdoc(module) or "").splitlines()), ""]
    for name in sorted(names, key=str.lower):
        value = getattr(module, name)
        if inspect.ismodule(value) or name.startswith("__"):
            continue
        lines += [*entry(f"{path}.{name}", value, again=inspect.isclass(value) and id(value) in shown), ""]
        shown |= {id(value)} if inspect.isclass(value) else set()
    return "\n".join(lines)


def entry(name, value, again=False):
    """The directive of a public name: a class with its public methods, a function, or a value."""
    if inspect.isclass(value):
        return [f".. autoclass:: {name}", "   :no-index:" if again else "   :members:"]
    if inspect.isroutine(value):
        return [f".. autofunction:: {name}"]
    return [f".. py:data:: {name}", f"   :type: {type(value).__name__}", "", f"   {value_line(value)}"]


def value_line(value):
    """A constant in one line: its value if that is short, the keys of a dict, the number of its elements."""
    if isinstance(value, dict):
        return "Keys: " + ", ".join(f"``{key!r}``" for key in value) + "."
    text = repr(value)
    return f"``{text}``" if len(text) < 400 and "\n" not in text and " at 0x" not in text else f"{len(value)} elements." if hasattr(value, "__len__") else ""


def summary(value):
    """The first line of a docstring."""
    return (inspect.getdoc(value) or "").split("\n")[0]


