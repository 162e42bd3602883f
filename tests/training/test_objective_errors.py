"""What the adversarial objectives and their steps refuse, by the argument's name and value."""
import functools

import jax
import pytest

from tests.helpers.adversarial_steps import KEY, OPTIONS, PGD, make, sgd, start
from tests.helpers.toy_training import Classifier, batch
from vmamba_jax import attacks
from vmamba_jax.training import objectives


@pytest.mark.parametrize("name, options, message", [
    ("trades", {"beta": -1}, "beta=-1.0: expected a finite number >= 0"),
    ("trades", {"statistics": "two"}, "statistics='two': expected one of 'shared', 'separate'"),
    ("trades", {"attack": lambda *a: a[1]}, "attack=.*: expected a dataclass with a field loss"),
    ("mart", {"beta": -1}, "beta=-1.0: expected a finite number >= 0"),
    ("mart", {"label_smoothing": 1.0}, "label_smoothing=1.0: expected"),
    ("mart", {"attack_mode": "both"}, "attack_mode='both': expected one of 'eval', 'train'"),
    ("free", {"eps": None}, "eps=None: expected a finite number >= 0"),
    ("free", {"released": True}, "eps=0.1, step_size=0.06 with released=True: expected None for both"),
    ("free", {"replays": 0}, "replays=0: expected an integer >= 1"),
    ("fast", {"watch_every": 0}, "watch_every=0: expected None or an integer"),
    ("yopo", {"passes": 0}, "passes=0: expected an integer >= 1"),
    ("yopo", {"inner_steps": 0}, "inner_steps=0: expected an integer >= 1"),
    ("yopo", {"layer": 3}, "layer=3: expected None or a Flax module path"),
    ("awp", {"gamma": -0.1}, "gamma=-0.1: expected"),
    ("awp", {"objective": "awp"}, "objective='awp': expected an objective other than awp"),
    ("pgd_at", {"attack": attacks.fgsm(0.1), "released": True}, "attack=fgsm.* with released=True: expected attacks.pgd"),
    ("pgd_at", {"attack": attacks.pgd(0.1, 2, norm="l2"), "released": True}, "norm='l2'"),
    ("pgd_at", {"attack": PGD, "scheduled": ("steps",)}, r"scheduled=\('steps',\): expected some of \('eps', 'step_size'\)"),
    ("light", {"eps_schedule": None}, "eps_schedule=None: expected a function"),
    ("standard", {"accumulate": 0}, "accumulate=0: expected an integer >= 1"),
    ("standard", {"augment": 3}, "augment=3: expected None or a function"),
])
def test_bad_options(name, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        objectives.create(name, Classifier(), sgd(), **{**OPTIONS.get(name, {}), **options})


def test_other_errors():
    with pytest.raises(TypeError, match="perturb=2: expected an option of the objective, or one of .*accumulate"):
        objectives.standard(Classifier(), sgd(), radius=1, perturb=2)
    with pytest.raises(ValueError, match="step=.*: expected an objective's step that is not yet perturbed"):
        objectives.perturb_weights(make("awp")[0])
    step, state = make("free")
    shape = functools.partial(jax.eval_shape, step)
    with pytest.raises(ValueError, match="state = step.begin"):
        shape(start(), batch(), KEY)
    with pytest.raises(ValueError, match="state.carry of another objective: expected None"):
        jax.eval_shape(make("trades")[0], state, batch(), KEY)
    with pytest.raises(ValueError, match=r"images \(32, 4, 4, 1\) do not fit the perturbation \(16, 4, 4, 1\)"):
        shape(state, batch(0, 32), KEY)
    with pytest.raises(ValueError, match="accumulate=3: expected a divisor of the device's 16 images"):
        jax.eval_shape(make("mart", accumulate=3)[0], start(), batch(), KEY)
    with pytest.raises(ValueError, match="layer='Dense_7', which the model does not call: expected a Flax module path"):
        jax.eval_shape(make("yopo", layer="Dense_7")[0], start(), batch(), KEY)
    with pytest.raises(ValueError, match="expected a Flax model"):
        jax.eval_shape(objectives.yopo(lambda v, x, **_: x.reshape(16, -1), sgd(), eps=0.1, step_size=0.1), start(), batch(), KEY)
