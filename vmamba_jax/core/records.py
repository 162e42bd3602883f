"""Frozen dataclasses that are pytrees: hashable when concrete, with their numbers as leaves."""
import dataclasses
import typing

import jax

from vmamba_jax.core.results import Result, Rows


@typing.dataclass_transform(frozen_default=True)
def record(*numbers):
    """Class decorator: a frozen dataclass registered as a pytree, with the fields `numbers` as dynamic leaves and all others static.

    A record is a valid static argument of `jax.jit` (it hashes by value) and a valid traced one (changing a radius then does not
    recompile). `jax.tree_util.register_dataclass` rebuilds instances through `__init__`, so `__post_init__` would check the tracers and
    placeholders that JAX puts into leaves; a record is rebuilt without it.
    """
    def decorate(cls):
        cls = dataclasses.dataclass(frozen=True, repr=False)(cls)
        static = tuple(field.name for field in dataclasses.fields(cls) if field.name not in numbers)

        def flatten(self):
            return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in numbers], tuple(getattr(self, n) for n in static)

        def unflatten(values, leaves):
            self = object.__new__(cls)
            self.__dict__.update(zip(static, values, strict=True))
            self.__dict__.update(zip(numbers, leaves, strict=True))
            return self

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
        return cls
    return decorate


def _flatten_result(result):
    names = sorted(result)
    return [(jax.tree_util.DictKey(name), result[name]) for name in names], (tuple(names), tuple(result.joined.items()))


def _unflatten_result(about, leaves):
    names, joined = about
    return Result(zip(names, leaves, strict=True), **dict(joined))


# as the dicts and lists that they are, for `jax.tree`; here, because `core.results` loads without JAX
jax.tree_util.register_pytree_with_keys(Result, _flatten_result, _unflatten_result)
jax.tree_util.register_pytree_with_keys(Rows, lambda rows: ([(jax.tree_util.SequenceKey(i), row) for i, row in enumerate(rows)], None), lambda _, rows: Rows(rows))


def show(name, fields):
    """`name(field=value, ...)` with floats of at most six digits."""
    def text(value):
        return f"{value:.6g}" if isinstance(value, float) else repr(value)
    return f"{name}({', '.join(f'{key}={text(value)}' for key, value in fields.items())})"


class Described:
    """Base class of records with `settings`, a dict of "name" and fields; `repr` prints it."""

    def __repr__(self):
        settings = self.settings
        return show(settings.pop("name"), settings)

    def _set(self, **fields):
        """Replace fields by checked values; only for `__post_init__`."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)
