"""Shared by the families of dense models: their backbones, nested options, and names of the backbone's weights inside a detector or segmenter."""
import dataclasses
import types

from vmamba_jax.checkpoints.families import convnext, resnet, swin, vim, vmamba
from vmamba_jax.checkpoints.families.common import complete
from vmamba_jax.core import checks
from vmamba_jax.models.baselines.resnet import BLOCKS

FAMILIES = {"vmamba": vmamba, "swin": swin, "convnext": convnext, "resnet": resnet, "vim": vim}
TYPES = {"MM_VSSM": "vmamba", "VisionMambaSeg": "vim"} | {name: name for name in FAMILIES}       # classes in the configs of VMamba's repository, and our names
MAPS, VIM_MAPS = (0, 1, 2, 3), (5, 11, 17, 23)
PREFIX = "backbone."


def backbone(options):
    """The backbone of a dense model's options: {"type": one of TYPES, and the options of that family}.

    Raises:
        ValueError: another type, an unknown or unsupported option, or other maps than four.
    """
    given = dict(options or {})
    name = TYPES[checks.choice("backbone.type", given.pop("type", "vmamba"), TYPES)]
    maps = tuple(given.pop("out_indices", VIM_MAPS if name == "vim" else MAPS))
    if name == "vim":  # any four of its blocks
        checks.require(len(maps) == 4, f"backbone.out_indices={maps}: expected four blocks")
        given = {"if_cls_token": False} | given
    else:
        checks.require(maps == MAPS, f"backbone.out_indices={maps}: expected {MAPS}")
    return FAMILIES[name].build(complete(name, FAMILIES[name], given, "backbone")).clone(out_indices=maps)


def widths(model):
    """Channels of a backbone's four maps."""
    if isinstance(model, vim.MODEL):
        return [model.embed_dim] * 4
    if hasattr(model, "embed_dim"):
        return [model.embed_dim * 2**i for i in range(4)]
    return list(model.dims) if hasattr(model, "dims") else [x * BLOCKS[model.block] for x in model.channels]


def filled(template, given, free, path=""):
    """Options as nested dicts: those given, and the template's for the others, with tuples in place of lists.

    Args:
        template: nested dicts of every option.
        given: nested dicts of some of them; None: none.
        free: paths, keys joined by dots, of options that may differ from the template; the others must not.
        path: of the options, for messages.

    Raises:
        ValueError: an unknown option, or an unsupported value; the message has its path.
    """
    given = dict(given or {})
    if unknown := [key for key in given if key not in template]:
        named = ", ".join(f"{key}={given[key]!r}" for key in unknown)
        raise ValueError(f"{path[:-1] + ': ' if path else ''}{named}: expected {', '.join(template)}")
    options = {}
    for key, default in template.items():
        value = given.get(key, default)
        if isinstance(default, dict) and path + key not in free:
            if not isinstance(value, (dict, types.NoneType)):
                raise ValueError(f"{path}{key}={value!r}: expected a dict of options")
            options[key] = filled(default, value, free, f"{path}{key}.")
            continue
        options[key] = value = tuple(value) if isinstance(value, list) else value
        if path + key not in free and value != default:
            raise ValueError(f"{path}{key}={value!r}: expected {default!r}, the only supported value")
    return options


def same(options, **expected):
    """Raise a ValueError unless options of a part, by their paths with __ for dots, are None or equal what is expected."""
    for path, wanted in expected.items():
        value = options
        for key in path.split("__"):
            value = value[key]
        if value is not None and value != wanted:
            raise ValueError(f"{path.replace('__', '.')}={value!r}: expected {wanted!r}, as of the model's other parts")


@dataclasses.dataclass(frozen=True)
class OverBackbone:
    """A family, as `families` defines it, of dense models over one family of backbones.

    Attributes:
        heads: function (path of a leaf outside of the backbone) -> its original name.
        family: the backbone's.
    """
    heads: object
    family: object
    CLASSIFIER = ()

    @property
    def BUFFERS(self):
        return getattr(self.family, "BUFFERS", ())

    def original_name(self, model, path):
        return PREFIX + self.family.original_name(model.backbone, path[1:]) if path[0] == "backbone" else self.heads(path)

    def modern(self, state_dict, model):
        """The same weights, the backbone's under the names of its repository's head."""
        if not hasattr(self.family, "modern"):
            return state_dict
        inside = {name.removeprefix(PREFIX): x for name, x in state_dict.items() if name.startswith(PREFIX)}
        rest = {name: x for name, x in state_dict.items() if not name.startswith(PREFIX)}
        return rest | {PREFIX + name: x for name, x in self.family.modern(inside, model.backbone).items()}

    def fit(self, x, path, shape, model):
        return self._inside("fit", x, path, shape, model.backbone)

    def unfit(self, x, path):
        return self._inside("unfit", x, path)

    def original_shape(self, path, shape):
        return self._inside("original_shape", tuple(shape), path)

    def _inside(self, function, x, path, *args):
        """The backbone's `function` for its leaves; the heads' arrays have one layout."""
        if path[1] != "backbone" or not hasattr(self.family, function):
            return x
        path = (path[0], *path[2:])
        return self.family.original_shape(path, x) if function == "original_shape" else getattr(self.family, function)(x, path, *args)


def over(model, heads):
    """The `OverBackbone` of a model."""
    return OverBackbone(heads, next(family for family in FAMILIES.values() if isinstance(model.backbone, family.MODEL)))
