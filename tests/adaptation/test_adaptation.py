"""TENT and TRUST against two steps of the released programs, in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vmamba_jax import adaptation, checkpoints, create_model
from vmamba_jax.models import Classifier

OPTIONS = dict(num_classes=10, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), ssm_d_state=1, ssm_ratio=1.0, ssm_conv_bias=False, forward_type="v05_noz",
               downsample_version="v3", drop_path_rate=0.0, imgsize=32)
METHODS = {"tent": adaptation.tent, "trust_naive": lambda *args: adaptation.trust(*args, permutations=("0123",)), "trust": adaptation.trust}


@pytest.mark.parametrize("norm,name,learning_rate", [
    ("ln", "trust_naive", 1e-3),
    *(pytest.param(*row, marks=pytest.mark.slow) for row in [("bn", "tent", 1e-4), ("ln", "trust", 1e-3), ("bn", "trust_naive", 1e-4), ("bn", "trust", 1e-4)])])
def test_two_steps(golden, x64, norm, name, learning_rate):
    arrays = golden(f"tta_vmamba_{norm}")
    model = checkpoints.model_from_options("vmamba", OPTIONS | {"norm_layer": {"ln": "ln2d", "bn": "bn"}[norm]})
    weights = {key: x.astype(np.float64) if x.dtype == np.float32 else x for key, x in arrays.items() if "/" not in key and not key.startswith("batch")}
    variables = checkpoints.convert(model, weights)
    method = METHODS[name](model, learning_rate)
    state, step = method.init(variables), jax.jit(method.step)
    for i in range(2):
        state, logits = step(state, jnp.asarray(np.moveaxis(arrays[f"batch{i}"], 1, -1), jnp.float64))
        np.testing.assert_allclose(logits, arrays[f"{name}/after{i}_f64"], atol=1e-10)
    written, before = (checkpoints.to_state_dict(model, x) for x in (state.variables, variables))
    adapted = {key.removeprefix(f"{name}/batch1/").removesuffix("_f64"): x for key, x in arrays.items() if key.startswith(f"{name}/batch1/")}
    assert adapted
    for key, x in written.items():
        np.testing.assert_allclose(x, adapted.get(key, before[key]), atol=1e-10, err_msg=key)


@pytest.fixture(scope="module")
def vmamba():
    model = create_model("vmamba_tiny", dims=(8,), depths=(2,), patch_size=4, num_classes=3, drop_path_rate=0.5)
    return model, Classifier(model).init(jax.random.key(0), (8, 8, 3))


def test_drop_path_reset_and_errors(vmamba):
    model, variables = vmamba
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
    method = adaptation.trust(Classifier(model), 0.1, permutations=("0123", "1023"))
    start = method.init(variables)
    step = jax.jit(method.step)
    (one, logits), (same, _), (other, _) = (step(start, images, jax.random.key(k)) for k in (0, 0, 1))
    leaves = lambda state: jax.tree.leaves(state.variables)
    assert logits.shape == (4, 3) and all((a == b).all() for a, b in zip(leaves(one), leaves(same), strict=True))
    assert any((a != b).any() for a, b in zip(leaves(one), leaves(other), strict=True))
    changed = {path for path, x in flatten_dict(one.variables["params"]).items() if (x != flatten_dict(variables["params"])[path]).any()}
    assert changed == {path for path in flatten_dict(variables["params"]) if "op" in path and "out_norm" not in path}
    with pytest.raises(ValueError, match="key=None with drop_path_rate=0.5: expected a random key"):
        method.step(start, images)
    with pytest.raises(ValueError, match="model=VMamba: expected a model with batch norms, or norms='all'"):
        adaptation.tent(model).init(variables)
    state = adaptation.tent(model, norms="all").init(variables)
    assert {path[-2] for path in adaptation.tent(model, norms="all")._adapted(variables)} >= {"norm", "out_norm"} and state.moments
    with pytest.raises(ValueError, match="permutations='0012': expected each a permutation of '0123'"):
        adaptation.trust(model, permutations=("0012",))
    with pytest.raises(ValueError, match="learning_rate=0"):
        adaptation.tent(model, 0)
    with pytest.raises(TypeError, match="expected a Linen module or a Classifier"):
        adaptation.tent("vmamba_tiny")


def test_trust_needs_a_scan():
    model = create_model("resnet18", num_classes=3, layers=(1, 1), channels=(4, 4))
    with pytest.raises(ValueError, match="model=ResNet: expected a VMamba, whose SS2D adapts"):
        adaptation.trust(model).init(jax.eval_shape(lambda: Classifier(model).init(jax.random.key(0), (16, 16, 3))))
