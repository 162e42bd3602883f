"""Statistics of hidden states against NumPy on the recorded states, and the share that goes through D."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.attention_models import IMAGES, MEAN, STD, VIM, VIT, VMAMBA, random_variables
from vmamba_jax import analysis, parallel

LABELS = np.zeros(2, int)
ONE = {"mesh": parallel.data_mesh(jax.devices()[:1]), "mean": MEAN, "std": STD}


def expected(states, D):
    """Means over images of one block's statistics; states (b, K, ...)."""
    states = {name: np.asarray(states[name][0], np.float64) for name in ("delta", "A_bar", "B", "C", "s", "c")}
    u = states["c"] if states["c"].ndim == states["s"].ndim else states["c"][:, None]
    around = u * np.asarray(D).reshape(1, -1, *(1,) * (states["s"].ndim - 3), u.shape[-1])
    share = lambda a, y: np.mean([np.abs(p).mean() / (np.abs(p).mean() + np.abs(q - p).mean()) for p, q in zip(a, y, strict=True)])
    return {"delta": states["delta"].mean(), "decay": states["A_bar"].mean(), "B": np.linalg.norm(states["B"], axis=-1).mean(),
            "C": np.linalg.norm(states["C"], axis=-1).mean(), "skip": share(around.sum(1), states["s"].sum(1))}, share(around[:, 1], states["s"][:, 1])


def check(row, found):
    numbers, second = found
    for name, value in numbers.items():
        np.testing.assert_allclose(row[name]["mean"], value, rtol=1e-4)
        assert row[name]["n"] == 2 and row[name]["low"] <= row[name]["mean"] <= row[name]["high"]
    np.testing.assert_allclose(row["skip"]["directions"][1], second, rtol=1e-4)
    assert 0.05 < second < 0.95  # neither path is idle, so each counts


def test_statistics_of_vmamba():
    model = VMAMBA.clone(depths=(1,))
    variables = random_variables(model)
    x = (IMAGES - jnp.array(MEAN)) / jnp.array(STD)
    recorded = jax.jit(lambda x: model.apply(variables, x, mutable=["intermediates"])[1]["intermediates"])(x)
    found = analysis.state_statistics(model, variables, (IMAGES, LABELS), **ONE)
    assert [(row["block"], row["stage"]) for row in found["blocks"]] == [(0, 0)] and found["examples"] == 2
    op = variables["params"]["layers_0"]["blocks_0"]["op"]
    check(found["blocks"][0], expected(recorded["layers_0"]["blocks_0"]["op"], np.asarray(op["Ds"]).reshape(4, -1)))

    silent = jax.tree_util.tree_map_with_path(lambda path, w: w * (jax.tree_util.keystr(path).find("Ds") < 0), variables)
    assert analysis.state_statistics(model, silent, (IMAGES, LABELS), **ONE)["blocks"][0]["skip"]["mean"] == 0


def test_statistics_of_vim():
    variables = random_variables(VIM)
    x = (IMAGES - jnp.array(MEAN)) / jnp.array(STD)
    recorded = jax.jit(lambda x: VIM.apply(variables, x, mutable=["intermediates"])[1]["intermediates"])(x)
    row, = analysis.state_statistics(VIM, variables, (IMAGES, LABELS), **ONE)["blocks"]
    mixer = variables["params"]["layers_0"]["mixer"]
    check(row, expected(recorded["layers_0"]["mixer"], np.stack([mixer["D"], mixer["D_b"]])))


def test_other_models():
    with pytest.raises(TypeError, match="model is ViT: expected VMamba, Vim"):
        analysis.state_statistics(VIT, {}, (IMAGES, LABELS))
    with pytest.raises(ValueError, match="expected scans over the whole map"):
        analysis.state_statistics(VMAMBA.clone(scan_pattern="cascade"), {}, (IMAGES, LABELS))
