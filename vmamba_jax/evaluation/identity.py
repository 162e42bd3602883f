"""The identity of a callable in any process: a digest of its code and of the arrays and values that it uses."""
import dataclasses
import dis
import functools
import pathlib
import secrets
import sys
import sysconfig
import types
import warnings

import jax
import numpy as np

import vmamba_jax
from vmamba_jax import parallel
from vmamba_jax.core import closures
from vmamba_jax.data.source import digest

PROCESS = secrets.token_hex(8)  # part of every identity that cannot be known in another process
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range, slice, np.dtype)
GENERATED = ("__init__", "__repr__", "__eq__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__", "__setattr__", "__delattr__", "__replace__")  # by dataclass
LIBRARIES = tuple(pathlib.Path(path).resolve() for path in (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}, pathlib.Path(vmamba_jax.__file__).parent))


def of(value):
    """(digest, what it lacks) of a function, a callable object or any pytree of them.

    Functions count by their code, defaults, closure and the globals they load; functions and classes of installed packages by name; objects
    by class and attributes, or what their method `__identity__` returns; arrays by their bytes. An equal digest in another process means equal results as far as these reach.

    Returns:
        The digest, 64 hexadecimal digits, and the names of the types of the values that cannot be described; such a digest holds in this
        process only.
    """
    walk = _Walk()
    found = walk(value)
    unknown = sorted(walk.unknown)
    return digest(repr(found), *([PROCESS] if unknown else [])), unknown


def of_model(logits_fn, model_id, state):
    """The identity of a classifier in a state file; warns if no other process can resume from the file."""
    if model_id is not None:
        if not isinstance(model_id, str) or not model_id:
            raise TypeError(f"model_id={model_id!r}: expected a name, or None")
        return f"{model_id} {parallel.fingerprint(logits_fn)[:16]}"
    if hasattr(logits_fn, "identity") and (text := logits_fn.identity()):
        return text
    found, unknown = of(closures.argument(logits_fn))
    if unknown:
        warnings.warn(f"state={str(state)!r}: the classifier uses {', '.join(unknown)}, which no other process can recognize, so only this process "
                      "can resume; expected model_id=NAME, a name of the model and its weights", UserWarning, stacklevel=6)
    return found


class _Walk:
    """A description of nested values as tuples of text."""

    def __init__(self):
        self.seen, self.unknown, self.kept = {}, set(), []

    def __call__(self, value):
        if isinstance(value, (*PLAIN, np.generic)):
            return type(value).__name__, repr(value)
        if isinstance(value, (np.ndarray, jax.Array)):
            return self._array(value)
        if id(value) in self.seen:
            return "again", self.seen[id(value)]
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)  # an object that is freed could give its id to another
        return self._composite(value)

    def _array(self, array):
        if array.dtype == object:
            return "array", tuple(map(self, array.reshape(-1).tolist()))
        keys = isinstance(array, jax.Array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
        return "array", parallel.fingerprint(jax.random.key_data(array) if keys else array)

    def _composite(self, value):
        if (name := _library_name(value)) is not None:
            return "library", name
        if isinstance(value, (tuple, list)):
            return type(value).__name__, tuple(map(self, value))
        if isinstance(value, (set, frozenset)):
            return "set", tuple(sorted(map(repr, value)))
        if isinstance(value, dict) or (hasattr(value, "items") and hasattr(value, "keys") and not isinstance(value, type)):
            return "dict", tuple((repr(key), self(item)) for key, item in sorted(value.items(), key=lambda pair: repr(pair[0])))
        if isinstance(value, functools.partial):
            return "partial", self(value.func), self(value.args), self(value.keywords)
        if isinstance(value, types.MethodType):
            return "method", self(value.__func__), self(value.__self__)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.ModuleType):
            return "module", value.__name__
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, (staticmethod, classmethod)):
            return type(value).__name__, self(value.__func__)
        if isinstance(value, property):
            return "property", self(value.fget)
        return self._object(value)

    def _object(self, value):
        if hasattr(value, "__identity__"):
            return "object", self(type(value)), self(value.__identity__())
        if isinstance(value, jax.tree_util.PyTreeDef):
            return "structure", value.num_leaves, self(value.node_data()), tuple(map(self, value.children()))
        if hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor of PyTorch, whose values are no attributes
            return self._array(value.detach().cpu().numpy())
        if hasattr(value, "__wrapped__"):  # such as a jitted function
            return "wrapped", type(value).__name__, self(value.__wrapped__)
        if dataclasses.is_dataclass(value):
            skipped = ("parent", "name") if isinstance(value, _linen()) else ()
            fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value) if field.name not in skipped}
            return "dataclass", self(type(value)), self(fields)
        leaves, structure = jax.tree.flatten(value)
        if not jax.tree_util.treedef_is_leaf(structure):  # a registered tree, such as a variable of NNX
            return "tree", self(structure), tuple(map(self, leaves))
        if hasattr(value, "__dict__"):
            slots = {name for cls in type(value).__mro__ for name in np.atleast_1d(vars(cls).get("__slots__", ())).tolist() if name != "__dict__"}
            return "object", self(type(value)), self({name: getattr(value, name, None) for name in slots} | vars(value))
        self.unknown.add(f"a value of type {type(value).__module__}.{type(value).__qualname__}")
        return "unknown", type(value).__qualname__

    def _class(self, value):
        written = GENERATED if dataclasses.is_dataclass(value) else ()
        members = {name: member for name, member in vars(value).items()
                   if isinstance(member, (types.FunctionType, staticmethod, classmethod, property)) and name not in written}
        return "class", value.__qualname__, tuple(map(self, value.__bases__)), self(members)

    def _function(self, function):
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        parts = function.__qualname__, self(function.__defaults__), self(function.__kwdefaults__), tuple(map(self, cells))
        if _is_library(function.__module__):
            return "function", function.__module__, *parts
        loaded = tuple((name, self._global(function.__globals__, name, attributes)) for name, attributes in sorted(_globals(function.__code__).items()))
        return "function", *parts, self._code(function.__code__), loaded

    def _global(self, scope, name, attributes):
        value = scope.get(name, __builtins__ if name == "__builtins__" else None)
        if isinstance(value, types.ModuleType) and not _is_library(value.__name__):
            return "module", value.__name__, tuple((each, self(getattr(value, each))) for each in attributes if hasattr(value, each))
        return self(value)

    def _code(self, code):
        constants = tuple(self._code(each) if isinstance(each, types.CodeType) else self(each) for each in code.co_consts)
        return code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars


def _globals(code):
    """{name of a global that the code loads: attribute names in the code}, nested functions included."""
    found = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found[instruction.argval] = tuple(sorted(code.co_names))
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            for name, attributes in _globals(each).items():
                found[name] = tuple(sorted({*found.get(name, ()), *attributes}))
    return found


def _library_name(value):
    """"module.name" of what an installed package defines under that name; None for anything else."""
    if isinstance(value, types.ModuleType):
        return value.__name__ if _is_library(value.__name__) else None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, (types.ModuleType, type(None))):
        return None
    if not isinstance(module, str) or not isinstance(name, str) or not _is_library(module):
        return None
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}.{name}" if found is value else None


@functools.lru_cache(maxsize=1024)
def _is_library(module):
    """Whether an installed package, the standard library or this package has the module."""
    if not isinstance(module, str) or module == "__main__":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module.split(".")[0] in sys.stdlib_module_names or module in sys.builtin_module_names
    path = pathlib.Path(file).resolve()
    return any(path.is_relative_to(library) for library in LIBRARIES) or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _cell(cell):
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _linen():
    from flax import linen
    return linen.Module
