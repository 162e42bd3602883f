"""A non-finite update is skipped on all devices."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy, batch, same
from vmamba_jax import parallel, training

OPTIMIZER = training.optimizer.create("adamw", learning_rate=0.1)
STEP = training.skip_nonfinite(training.objectives.standard(Classifier(Net("batch")), OPTIMIZER, ema_decay=0.5))


@pytest.fixture(scope="module")
def state():
    return training.create_state(Classifier(Net("batch")), OPTIMIZER, jax.random.key(0), SHAPE, ema_decay=0.5)


@pytest.mark.parametrize("mapped", [False, True], ids=["jit", "eight devices"])
def test_bad_batch_only_increments_the_step(state, mapped):
    """On eight devices one image is bad, so the update of the other seven is finite."""
    mesh = parallel.data_mesh()
    run = parallel.map_step(STEP, mesh, donate=False) if mapped else jax.jit(STEP)
    state = parallel.replicate(state, mesh) if mapped else state
    good, bad = ({name: jnp.asarray(array) for name, array in Toy(broken_at=at)[0].items() if name != "index"} for at in (None, 0))
    state, metrics = run(state, good, jax.random.key(0))
    assert metrics["skipped"] == 0 and np.isfinite(metrics["loss"])
    kept, metrics = run(state, bad, jax.random.key(1))
    assert metrics["skipped"] == 1 and np.isnan(metrics["loss"])
    assert int(kept.step) == int(state.step) + 1
    same(kept.replace(step=state.step), state)


def test_infinite_gradient_of_a_finite_loss(state):
    def step(state, batch, key, *, axis_name=None):
        w = state.params["Dense_0"]["kernel"]
        value, gradient = jax.value_and_grad(lambda w: jnp.sqrt(jnp.abs(w - jax.lax.stop_gradient(w))).sum())(w)
        params = {**state.params, "Dense_0": {**state.params["Dense_0"], "kernel": w - gradient}}
        return state.replace(step=state.step + 1, params=params), {"loss": value, "grad_norm": jnp.linalg.norm(gradient)}

    kept, metrics = jax.jit(training.skip_nonfinite(step))(state, batch(), jax.random.key(0))
    assert metrics["loss"] == 0 and metrics["skipped"] == 1 and int(kept.step) == 1
    same(kept.params, state.params)
