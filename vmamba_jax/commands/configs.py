"""`configs`: the shipped configs, and every key of one of them."""
import ast
import importlib

from vmamba_jax.commands import programs


def configs(name: str = "", /):
    """List the shipped configs, or print one's docstring and every resolved key with its type, value and meaning.

    Args:
        name: Such as digits, or with an argument digits:objective=pgd_at.
    """
    place = programs.importable() / "configs"
    known = shipped(place)
    if not name:
        wide = max(map(len, known))
        print("\n".join(f"{each:<{wide}}  {line}" for each, line in known.items()))
        return
    file, _, argument = name.partition(":")
    if stem(file) not in known:
        raise ValueError(f"configs {name}: expected one of {', '.join(known)}")
    module = importlib.import_module(f"configs.{stem(file)}")
    config = module.get_config(argument or None)
    print(f"{(module.__doc__ or '').strip()}\n\n{(module.get_config.__doc__ or '').strip()}\n\n{importlib.import_module('configs.fields').table(config)}")


def stem(file):
    """The name of a shipped config in "digits", "digits.py" or "configs/digits.py"."""
    return file.removeprefix("configs/").removesuffix(".py")


def shipped(place):
    """{name: first line of the docstring} of the configs in a folder: the files that define `get_config`."""
    found = {}
    for path in sorted(place.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "get_config" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").split("\n")[0]
    return found
