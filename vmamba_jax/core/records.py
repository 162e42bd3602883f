"""Frozen descriptions whose numbers JAX can see: hashable when concrete, and pytrees with those numbers as leaves."""
import dataclasses

import jax


def record(*numbers):
    """Make a class a frozen dataclass and a pytree with the fields `numbers` as leaves and all other fields static.

    So an attack is a static argument of a jitted function (it hashes by value), or a traced one (its radius then varies without a new
    compilation). Rebuilding from leaves passes `__post_init__` by: JAX puts tracers and placeholders there.
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


def show(name, fields):
    """`name(field=value, ...)` with short numbers."""
    def text(value):
        return f"{value:.6g}" if isinstance(value, float) else repr(value)
    return f"{name}({', '.join(f'{key}={text(value)}' for key, value in fields.items())})"


class Described:
    """Base of records with `settings`, a dict of "name" and fields, by which they are shown."""

    def __repr__(self):
        settings = self.settings
        return show(settings.pop("name"), settings)

    def _set(self, **fields):
        """Put checked values in place of what was given, in `__post_init__`."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)
