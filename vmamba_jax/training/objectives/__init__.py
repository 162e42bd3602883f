"""Training objectives: each makes a pure per-device `step(state, batch, key, *, axis_name=None) -> (state, metrics)`.

The same step runs under `jax.jit` (axis_name=None), `jax.pmap(step, axis_name=...)` and `parallel.map_step`, and makes the same update:
state and key are the same on every device, the batch is the device's slice, and gradients, metrics and model state are averaged by
`lax.pmean`.

A batch is {"image": (b, H, W, C) in [0, 1], "label": (b,) classes or (b, classes) distributions}. Attacks get each label's likeliest class.
`segmentation` takes label maps (b, H, W), and attacks on dense predictions. Some objectives keep something in `state.carry` between steps (free: the perturbation; fast: its last measurement; separate batch
statistics): `state = step.begin(state, image_shape, batch_size)` adds it and returns other states unchanged. `cost(name, **options)`
returns a step's cost. All take augment, mix, ema_decay, ema_warmup and accumulate, see `Step`; those with an inner attack also attack_mode,
eps_schedule, scheduled and attack_weights, see `InnerAttack`. `detection` takes a batch of objects. `repair` needs masks and templates, so that it has no
entry in `OBJECTIVES`.
"""
from vmamba_jax.core import checks
from vmamba_jax.training.objectives.awp import awp, perturb_weights
from vmamba_jax.training.objectives.detection import detection
from vmamba_jax.training.objectives.fast import fast
from vmamba_jax.training.objectives.free import free
from vmamba_jax.training.objectives.inner_attack import InnerAttack, clean_variables
from vmamba_jax.training.objectives.interval import interval
from vmamba_jax.training.objectives.mart import mart
from vmamba_jax.training.objectives.noise import noise
from vmamba_jax.training.objectives.pgd_at import ReleasedPGD, pgd_at
from vmamba_jax.training.objectives.recipes import ares, light, singh
from vmamba_jax.training.objectives.repair import Penalty, repair
from vmamba_jax.training.objectives.segmentation import segmentation
from vmamba_jax.training.objectives.standard import standard
from vmamba_jax.training.objectives.step import Cost, Step
from vmamba_jax.training.objectives.trades import trades
from vmamba_jax.training.objectives.yopo import in_turn, yopo

OBJECTIVES = {"standard": standard, "pgd_at": pgd_at, "trades": trades, "mart": mart, "free": free, "fast": fast, "yopo": yopo, "awp": awp,
              "light": light, "singh": singh, "ares": ares, "segmentation": segmentation, "detection": detection, "noise": noise, "interval": interval}

__all__ = ["Cost", "InnerAttack", "OBJECTIVES", "Penalty", "ReleasedPGD", "Step", "ares", "awp", "clean_variables", "cost", "create", "detection",
           "fast", "free", "in_turn", "interval", "light", "mart", "noise", "perturb_weights", "pgd_at", "repair", "segmentation", "singh", "standard",
           "trades", "yopo"]


def create(name, classifier, optimizer, **options):
    """An objective's step by name, for configs.

    Args:
        name: a key of `OBJECTIVES`.
        classifier, optimizer: as of `pgd_at`.
        **options: that function's keywords.
    """
    return checks.by_name("objective", name, OBJECTIVES, options, positional=2)(classifier, optimizer, **options)


def cost(name, **options):
    """The `Cost` of an objective's step per training image, without a model: `cost("pgd_at", attack=attacks.pgd(8 / 255, steps=7))`.

    A step of `free` makes one update per replay; a step of any other objective makes one.

    Args:
        name, **options: as of `create`.

    Raises:
        ValueError: the number of passes of the attack depends on what it finds.
    """
    return create(name, None, None, **options).cost
