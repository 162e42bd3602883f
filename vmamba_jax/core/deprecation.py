"""Old public names that stay importable for one release."""
import importlib
import warnings


def warn(old, new, stacklevel=3):
    """Warn that `old` is now `new`, both as the user writes them; `stacklevel` as for `warnings.warn`, 3 for the caller of the caller."""
    warnings.warn(f"{old} is now {new}; the old name will be removed in the next release", DeprecationWarning, stacklevel=stacklevel)


def renamed(module, names):
    """A module's `__getattr__` that serves old names and warns.

    Args:
        module: `__name__` of the module that had the names.
        names: {old name: "package.module:new name"}.

    Returns:
        A function for the module's `__getattr__`: it returns the object under its new name with a `DeprecationWarning` that names both, and
        raises an AttributeError for every other name.
    """
    def __getattr__(name):
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].partition(":")
        warn(f"{module}.{name}", f"{home}.{new}")
        return getattr(importlib.import_module(home), new)

    return __getattr__


def moved(module, home):
    """A module's `__getattr__` that serves every public name of the module `home`, where its content is now, and warns."""
    def __getattr__(name):
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        warn(f"{module}.{name}", f"{home}.{name}")
        return value

    return __getattr__
