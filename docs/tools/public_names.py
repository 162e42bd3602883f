"""The public names of the package: what its `__all__` lists name, and what the modules listed there hold.

    python docs/tools/public_names.py            prints them
    python docs/tools/public_names.py --write    writes tests/golden/public_names.json, which a test compares with them
"""
import importlib
import inspect
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent
PACKAGES = ("vmamba_jax", "pallas_kernels", "vmamba_jax.models.sequence", "vmamba_jax.models.dense")  # the last two are named by the documentation alone
GOLDEN = ROOT / "tests" / "golden" / "public_names.json"


def public_modules(packages=PACKAGES):
    """{path: (module, its public names)}: the packages, and every module that is a public name of one of these, by the path that users write."""
    found, seen, waiting = {}, set(), [(name, importlib.import_module(name)) for name in packages]
    while waiting:
        path, module = waiting.pop(0)
        if module.__name__ in seen:
            continue
        seen.add(module.__name__)
        found[path] = module, names_of(module)
        waiting += [(f"{path}.{name}", value) for name, value in ((name, getattr(module, name)) for name in found[path][1]) if _own_module(value)]
    return found


def names_of(module):
    """A module's `__all__`; without one, the functions, classes and constants that the module itself defines, without leading underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)
            and (getattr(value, "__module__", None) == module.__name__ or (name.isupper() and not callable(value)))]


def public_names(packages=PACKAGES):
    """Dotted public names, sorted."""
    return sorted(f"{path}.{name}" for path, (_, names) in public_modules(packages).items() for name in names)


def _own_module(value):
    return inspect.ismodule(value) and value.__name__.partition(".")[0] in PACKAGES


def write():
    version = importlib.import_module("vmamba_jax.version").__version__
    GOLDEN.write_text(json.dumps({"version": version, "names": public_names()}, indent=0) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        print("\n".join(public_names()))
