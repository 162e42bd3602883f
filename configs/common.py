"""What the configurations share: the argument after the colon, and the usual attacks of an evaluation."""
import math

# Steps whose loss or gradient is not finite make no update; a run bears so many.
SKIPS = {"in_a_row": 10, "in_all": 100}


def parse_arg(arg, **defaults):
    """Read `key=value,flag,...`, the part of `--config file.py:ARG` after the colon.

    arg: the string, or None. A value is read as the type of its default; a key alone switches a boolean on.
    defaults: every key that is accepted, with its value where the argument does not name it.
    Returns a dict. Raises ValueError for a key that is not among the defaults, or a value that does not read.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, given, text = item.partition("=")
        if key not in defaults:
            raise ValueError(f"config argument {key!r} is not known; expected some of {', '.join(sorted(defaults))}")
        values[key] = _read(key, text if given else "true", defaults[key])
    return values


def choose(key, value, table):
    """table[value], or a ValueError naming what would have been accepted for the argument `key`."""
    if value not in table:
        raise ValueError(f"config argument {key}={value!r} is not known; expected one of {', '.join(table)}")
    return table[value]


def objective(name, *, eps, steps, step_size, ramp, norm="linf", label_smoothing=0.0):
    """The objective section: its method by name, with the attack of `steps` steps where the method attacks by steps.

    ramp: share of the training over which the radius grows from 0 to `eps`. trades_awp, mart_awp and pgd_awp move the weights too; free, fast
    and yopo have published settings of their own for all but the radius; free's epochs count 1 / replays as many passes through the data.
    accumulate: microbatches of an update.
    """
    attack = {"name": "pgd", "eps": eps, "steps": steps, "step_size": step_size, "norm": norm}
    ramped, near = {"ramp": ramp}, {"attack": {**attack, "start": "gaussian"}, "beta": 6.0, "ramp": ramp}
    sections = {
        "standard": {}, "pgd_at": {"attack": attack, **ramped}, "trades": near, "mart": near,
        "free": {"eps": eps, "replays": 4}, "fast": {"eps": eps, "watch_every": 100, **ramped},
        "yopo": {"eps": eps, "step_size": 0.25 * eps, "passes": 5, "inner_steps": 3},
        "pgd_awp": {"name": "awp", "objective": "pgd_at", "gamma": 0.01, "attack": attack, **ramped},
        "trades_awp": {"name": "awp", "objective": "trades", "gamma": 0.005, **near},
        "mart_awp": {"name": "awp", "objective": "mart", "gamma": 0.005, **near}}
    return {"name": name, "label_smoothing": label_smoothing, "accumulate": 1, **choose("objective", name, sections)}


def validation(objective, *, eps, every_epochs, steps=10, norm="linf", limit=0):
    """The validation section: how often, under which attack, and what chooses the best checkpoint.

    Robust accuracy chooses where the objective is adversarial, clean accuracy where it is not. limit: of validation images; 0: all.
    """
    return {
        "every_epochs": every_epochs, "limit": limit, "select": "accuracy" if objective == "standard" else "robust_accuracy",
        "attack": {"name": "pgd", "eps": eps, "steps": steps, "step_size": 2.5 * eps / steps, "norm": norm},
    }


def evaluation(eps, radii, *, steps=20, restarts=5, norm="linf", batch_size=256, examples=10):
    """The evaluation section: clean accuracy, FGSM and PGD at radius `eps`, and PGD over the radii.

    eps, radii: in units of [0, 1] pixels. Every attack is one entry, `--config.evaluation.attacks.pgd.restarts=10` changes it.
    The curve scales its attack's step size with the radius. `--config.evaluation.autoattack=standard` (or plus, rand) adds AutoAttack at the
    curve's radius and norm.
    """
    return {
        "split": "test", "batch_size": batch_size, "seed": 0, "examples": examples, "limit": 0, "autoattack": "",
        "attacks": {
            "fgsm": {"name": "fgsm", "eps": eps, "norm": norm},
            "pgd": {"name": "pgd", "eps": eps, "steps": steps, "step_size": 2.5 * eps / steps, "norm": norm, "restarts": restarts},
        },
        "curve": {"attack": "pgd", "radii": tuple(radii)},
    }


def _read(key, text, default):
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"config argument {key}={text!r} must be true or false")
        return text.lower() == "true"
    try:
        value = type(default)(text)
    except ValueError:
        raise ValueError(f"config argument {key}={text!r} must read as {type(default).__name__}, like {default!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"config argument {key}={text!r} must be finite")
    return value
