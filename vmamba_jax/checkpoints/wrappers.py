"""Finds the weights in what training programs save: dicts around them, several sets of them, prefixes of their names, copies and normalizers."""
import collections
import dataclasses
import itertools
import re

import numpy as np

AVERAGES = {"ema", "swa", "avg", "average", "averaged", "averaging", "polyak", "modelema"}  # words in the names of averaged weights
NO_WEIGHTS = {"optimizer", "optimizers", "optim", "opt", "scheduler", "schedulers", "sched", "scaler", "amp", "criterion", "loss", "losses", "loops",
              "callbacks", "rng", "config", "cfg", "args", "hparams", "hyper", "meta"}
INNER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # torch.compile, FSDP: at any depth
WORDS = {"module", "model", "net", "network", "backbone", "encoder", "attacker", "student", "teacher", "base_model", "_model", "model_ema", "ema",
         "ema_model", "_orig_mod"}  # first parts of names that wrappers add, for files that are read without a model
NORMALIZER = re.compile(r"(?:^|[._])(mean|std|mu|sigma)$")  # robustness, RobustBench and others store the input's normalization as buffers
COUNTERS = {"n_averaged", "num_updates", "decay", "step", "steps", "updates", "global_step", "initted"}  # scalars that averaging adds
DEEPEST = 6  # parts of a prefix
FORMATS = {"pytorch-lightning_version": "PyTorch Lightning", "ds_version": "DeepSpeed", "ds_config": "DeepSpeed"}


@dataclasses.dataclass(frozen=True)
class Weights:
    """One set of weights in a file.

    Attributes:
        where: key of the dict that holds it, with dots between the keys of nested dicts; "": the file's own dict.
        prefix: of its names in that dict, removed here.
        arrays: {name: array}.
        score: number of the model's weights among the names.
    """
    where: str
    prefix: str
    arrays: dict
    score: int = 0

    label = property(lambda self: self.prefix if self.prefix and not self.where else f"{self.where}:{self.prefix}" if self.prefix else self.where)


@dataclasses.dataclass(frozen=True)
class Found:
    """The chosen set of weights.

    Attributes:
        arrays: {name without prefix: array}; names outside the prefix keep their whole name.
        told: what was recognized, a phrase each.
        mean, std: of a normalizer in the file, tuples; None: it has none.
    """
    arrays: dict
    told: tuple
    mean: tuple | None = None
    std: tuple | None = None


def find(tree, expected, modern=dict, weights=None):
    """The `Found` weights of one model in the content of a file.

    Args:
        tree: dict, as from `read_torch`.
        expected: the model's own names.
        modern: function that gives {name: array} the model's spelling of the names.
        weights: "ema", "raw", or the label of a set as an error lists it; None: the average if the file has one, else the only set.

    Raises:
        TypeError: no dict of arrays by name.
        ValueError: several sets of weights, of which `weights` selects none or more than one.
    """
    if not isinstance(tree, dict):
        raise TypeError(f"state_dict={type(tree).__name__}: expected a dict of arrays by name")
    averages, sets = swapped(tree), weight_sets(tree)
    odd = {where: [f"{str(name)[:80]!r} ({type(x).__name__})" for name, x in held.items() if not isinstance(name, str) or not _fits(name, x)]
           for where, held in sets.items()}
    if not tree or all(odd.values()):
        where, found = next(iter(odd.items()))
        raise TypeError(f"state_dict={', '.join(found[:8]) or '{}'}: expected a dict of arrays by name" + f" in {where!r}" * bool(where))
    sets = {where: held for where, held in sets.items() if not odd[where]}
    options = list(itertools.chain.from_iterable(_prefixed(where, _plain(held), expected, modern) for where, held in sets.items()))
    fitting = [option for option in options if option.score >= max(1, len(expected) / 2)]
    chosen = choose(fitting, weights, averages) if fitting or weights else max(options, key=lambda option: len(option.arrays))
    told = [describe(option, averages, option is chosen) for option in (fitting if len(fitting) > 1 or chosen.label else [])]
    if not fitting and (common := common_prefix(chosen.arrays)):
        told.append(f"all names have the prefix {common!r}")
    in_sets = {option.prefix + name for option in options if option.where == chosen.where for name in option.arrays}
    rest = {name: x for name, x in _plain(sets[chosen.where]).items() if name not in in_sets}
    statistics, arrays = {}, {name: x for name, x in chosen.arrays.items() if name not in COUNTERS or np.size(x) != 1}
    missing = set(expected) - set(_attempt(modern, arrays))
    for name, x in rest.items():
        last = name.rpartition(".")[2]
        if (match := NORMALIZER.search(name)) and last not in expected and np.size(x) in (1, 3):
            statistics[{"mu": "mean", "sigma": "std"}.get(match[1], match[1])] = tuple(np.ravel(x).astype(float).round(6).tolist())
        elif last not in COUNTERS or np.size(x) != 1:
            arrays[next((short for short in _shorter(name) if short in missing), name)] = x
    if statistics:
        told.append("normalizer " + ", ".join(f"{name} {values}" for name, values in sorted(statistics.items())))
    return Found(arrays, tuple(told), statistics.get("mean"), statistics.get("std"))


def choose(options, weights, averages):
    """The one set of weights that the caller wants; sets that are equal count as one."""
    kinds = {option.label: kind(option, averages) for option in options}
    if weights is None:
        wanted = [option for option in options if kinds[option.label] == "ema"] or options
    else:
        wanted = [option for option in options if weights in (option.label, kinds[option.label])]
    listed = ", ".join(f"{label or 'the dict itself'!r} ({kind})" for label, kind in kinds.items()) or "none that fits the model"
    if not wanted:
        raise ValueError(f"weights={weights!r}: expected 'ema', 'raw' or a name of a set of weights in the file: {listed}")
    first = min(wanted, key=lambda option: len(option.label))
    if not all(same(option.arrays, first.arrays) for option in wanted):
        raise ValueError(f"weights={weights!r}: expected the name of one of several different sets of weights in the file: {listed}")
    return first


def weight_sets(tree):
    """{keys joined by dots: dict} of every dict in a file that holds weights; optimizers, configuration and the like are left out."""
    seen = set()

    def search(tree, at):
        seen.add(id(tree))
        inner = {}
        for key, x in tree.items():
            if isinstance(x, dict) and isinstance(key, str) and id(x) not in seen and "param_groups" not in x and not NO_WEIGHTS & words(key):
                inner |= search(x, (*at, key))
        own = sum(isinstance(key, str) and getattr(x, "ndim", 0) > 0 for key, x in tree.items())
        return {".".join(at): tree} if own > max(map(len, inner.values()), default=0) else inner

    return search(tree, ()) or {"": tree}


def swapped(tree):
    """{where: "ema" or "raw"} for programs that store the average in "state_dict" and the raw weights elsewhere."""
    meta = tree.get("meta")
    if isinstance(meta, dict) and "mmengine_version" in meta and "ema_state_dict" in tree:
        return {"state_dict": "ema", "ema_state_dict": "raw"}  # mmengine's EMAHook swaps them when it saves
    return {"state_dict": "ema", "current_model_state": "raw"} if "current_model_state" in tree else {}  # Lightning's WeightAveraging


def kind(option, averages):
    """"ema" or "raw"."""
    return averages.get(option.where) or ("ema" if AVERAGES & (words(option.where) | words(option.prefix)) else "raw")


def words(name):
    return set(re.split(r"[^a-z]+", name[:200].lower()))


def describe(option, averages, taken):
    """One phrase about a set of weights."""
    where = f"{option.where[:100]!r}, " if option.where else ""
    prefix = f"prefix {option.prefix[:100]!r}, " if option.prefix else ""
    return f"{'weights' if taken else 'other weights'} ({where}{prefix}{kind(option, averages)}, {len(option.arrays)} names)"


def same(a, b):
    """Whether two dicts hold equal arrays under equal names."""
    return a is b or (a.keys() == b.keys() and all(_equal(x, b[name]) for name, x in a.items()))


def _equal(x, y):
    return x is y or (np.shape(x) == np.shape(y) and x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes())


def common_prefix(names):
    """The dotted prefix that all of several names share, or ""."""
    names = list(names)
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[:length].rpartition(".")[0][:200] + "." if len(names) > 1 and "." in first[:length] else ""


def recognized(tree):
    """Phrases about what wraps the weights of a file, found without a model."""
    if not isinstance(tree, dict):
        return []
    told = [f"format: {name} {tree[key]}"[:100] if isinstance(tree[key], str) else f"format: {name}" for key, name in FORMATS.items() if key in tree]
    meta, averages = tree.get("meta"), swapped(tree)
    told += [f"format: OpenMMLab, {key} {meta[key]}"[:100] for key in ("mmengine_version", "mmcv_version") if isinstance(meta, dict) and key in meta]
    for where, held in weight_sets(tree).items():
        held = {name: x for name, x in held.items() if isinstance(name, str) and hasattr(x, "shape")}
        groups = collections.defaultdict(dict)
        for name, x in held.items():
            parts = name.split(".", DEEPEST)[:-1]
            groups["".join(f"{part}." for part in itertools.takewhile(WORDS.__contains__, parts))][name] = x
        for prefix, arrays in groups.items():
            common = prefix or common_prefix(arrays) if len(groups) == 1 and arrays else prefix
            told.append(describe(Weights(where, common, arrays), averages, True))
    return told


def _prefixed(where, held, expected, modern):
    """The sets of weights in one flat dict: one per prefix that, once removed, leaves at least half of the model's names; else all of it."""
    counts = collections.Counter(prefix for name in held for prefix in _prefixes(name))
    found = []
    for prefix in ("", *(prefix for prefix, n in counts.items() if 2 * n >= len(expected))):
        arrays = {name.removeprefix(prefix): x for name, x in held.items() if name.startswith(prefix)} if prefix else held
        score = len(set(expected).intersection(_attempt(modern, arrays)))
        found.append(Weights(where, prefix, arrays, score))
    fitting = [option for option in found if 2 * option.score >= len(expected)] or found[:1]
    others = tuple(option.prefix for option in fitting if option.prefix)
    if others and not fitting[0].prefix:
        fitting[0] = dataclasses.replace(fitting[0], arrays={name: x for name, x in held.items() if not name.startswith(others)})
    return fitting


def _prefixes(name):
    parts = name.split(".", DEEPEST)[:-1]
    return ["".join(f"{part}." for part in parts[:n]) for n in range(1, len(parts) + 1)]


def _shorter(name):
    """`name` without its first part, first two parts, ..."""
    parts = name.split(".", DEEPEST)
    return (".".join(parts[n:]) for n in range(1, len(parts)))


def _fits(name, x):
    """Whether an entry may stand among weights: an array, or a number that averaging adds."""
    return hasattr(x, "shape") or (name in COUNTERS and isinstance(x, (int, float)))


def _plain(held):
    """The arrays without the parts that torch.compile and FSDP insert into names."""
    held = {name: x for name, x in held.items() if hasattr(x, "shape")}
    plain = {INNER.sub("", name): x for name, x in held.items()}
    if len(plain) != len(held):
        raise ValueError(f"state_dict=dict of {len(held)} names: expected one spelling of every weight, not {len(held) - len(plain)} with and without "
                         "'_orig_mod.' or another part that torch inserts")
    return plain


def _attempt(modern, arrays):
    """`modern(arrays)`, or no names where they do not fit the model's family."""
    try:
        return modern(arrays)
    except ValueError:
        return {}
