"""Families in bfloat16 with float32 weights, and with recomputed activations. VMamba and Vim have such tests in their own files."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks, create_model, models, training
from vmamba_jax.models.baselines.vit import Block
from vmamba_jax.models.layers.stages import rematerialized

COMMON = {"num_classes": 3, "drop_path_rate": 0.5}
TINY = {
    "vit_tiny": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "image_size": 16},
    "swin_tiny": {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 2, "patch_size": 4, "image_size": 16},
    "convnext_tiny": {"dims": (8, 16), "depths": (1, 1)},
    "mambaout_tiny": {"dims": (8, 16), "depths": (1, 1)},
    "spatialmamba_tiny": {"dims": (8, 16), "depths": (1, 1)},
    "mambavision_tiny": {"dims": (8, 8, 16), "depths": (1, 1, 2), "num_heads": (1, 1, 2), "windows": (1, 1, 2), "stem_width": 4, "patch_size": 1},
    "resnet18": {"layers": (1, 1), "channels": (8, 16), "stem": "cifar", "stem_width": 8},
}
SOME = [pytest.param(name, marks=[] if name in ("vit_tiny", "resnet18") else [pytest.mark.slow]) for name in TINY]
IMAGES = jax.random.uniform(jax.random.key(1), (3, 16, 16, 3))
LABELS = jnp.arange(3)


@functools.cache
def made(name):
    """(model, its variables)."""
    model = create_model(name, **COMMON, **TINY[name])
    variables = jax.jit(model.init)(jax.random.key(0), IMAGES)
    return model, {key: tree for key, tree in variables.items() if key in ("params", "batch_stats")}


@functools.partial(jax.jit, static_argnums=0)
def step(model, variables):
    """((loss, (logits, statistics)), gradient of the weights) in training mode, with half of the branches dropped."""
    def loss(params):
        logits, updated = model.apply({**variables, "params": params}, IMAGES, train=True, rngs={"dropout": jax.random.key(2)},
                                      mutable=["batch_stats"])
        return training.objectives.losses.cross_entropy(logits, LABELS), (logits, updated)

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.often(1)
def test_remat_changes_neither_numbers_nor_names(name):
    model, variables = made(name)
    again = model.clone(remat=True)
    assert shapes(jax.eval_shape(again.init, jax.random.key(0), IMAGES)) == shapes(jax.eval_shape(model.init, jax.random.key(0), IMAGES))
    expected = step(model, variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), step(again, variables), expected)
    assert max(np.abs(x).max() for x in jax.tree.leaves(expected[1])) > 1e-2
    assert "remat" in str(jax.make_jaxpr(functools.partial(step, again))(variables))


def test_remat_policies_keep_fewer_activations():
    x = jnp.zeros((2, 5, 8))
    variables = jax.eval_shape(lambda: Block(num_heads=2).init(jax.random.key(0), x))

    def kept(policy):
        """Bytes that a block's forward pass keeps for its backward pass."""
        block = rematerialized(Block, policy)(num_heads=2)
        residuals = jax.eval_shape(lambda variables: jax.vjp(lambda v: block.apply(v, x, False), variables)[1], variables)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))

    sizes = [kept(policy) for policy in ("blocks", "projections", "dots", "none")]
    assert sizes == sorted(set(sizes)) and sizes[0] == kept(True) and sizes[-1] == kept(False)
    with pytest.raises(ValueError, match="remat='all'"):
        kept("all")


@pytest.mark.parametrize("name", SOME)
def test_bfloat16_keeps_float32_weights(name):
    model, variables = made(name)
    narrow = create_model(name, **COMMON, **TINY[name], dtype="bfloat16")
    assert narrow == model.clone(dtype=jnp.dtype("bfloat16"))
    assert shapes(jax.eval_shape(narrow.init, jax.random.key(0), IMAGES)["params"]) == shapes(variables["params"])
    (loss, (logits, statistics)), gradient = step(narrow, variables)
    (expected, (wide, wanted)), wide_gradient = step(model, variables)
    assert logits.dtype == jnp.bfloat16 and loss.dtype == jnp.float32 and abs(loss - expected) < 0.03
    assert np.abs(np.float32(logits) - wide).max() < 0.05 * max(1, np.abs(wide).max()) and not np.array_equal(np.float32(logits), wide)
    for found, other in ((gradient, wide_gradient), (statistics, wanted)):
        assert shapes(found) == shapes(other)
        a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)] + [[0]]) for tree in (found, other))
        assert np.linalg.norm(a - b) <= 0.1 * np.linalg.norm(b)


@pytest.mark.slow
def test_bfloat16_training_keeps_float32_state():
    """A whole step: attack on float32 images, bfloat16 model, float32 loss, weights, moments and average; the step donates the old state."""
    classifier = models.Classifier(create_model("vit_tiny", num_classes=3, **TINY["vit_tiny"], dtype="bfloat16", remat=True))
    optimizer = training.optimizer.create(learning_rate=1e-2)
    attack = attacks.pgd(0.03, steps=1)
    objective = training.objectives.pgd_at(classifier, optimizer, attack=attack, ema_decay=0.5)
    state = training.create_state(classifier, optimizer, jax.random.key(0), IMAGES.shape[1:], ema_decay=0.5)
    losses, seen, batch = [], [], {"image": IMAGES, "label": LABELS}

    def evaluate(state, step):
        seen.append(jax.tree.leaves((state.params, state.ema, state.opt_state)))
        return {}

    monitoring = training.Monitoring(log_every=1, progress=False, on_log=lambda step, values: losses.append(values.get("loss")))
    state = training.train(objective, state, [batch] * 4, steps=4, key=jax.random.key(0), monitoring=monitoring,
                           validation=training.Validation(evaluate, every=1))
    for leaves in seen[:-1]:
        assert all(x.is_deleted() for x in leaves if x.ndim)
    assert losses[0] > losses[-2] > 0
    assert {x.dtype for x in jax.tree.leaves((state.params, state.ema))} == {jnp.dtype(jnp.float32)}
    assert {x.dtype for x in jax.tree.leaves(state.opt_state)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


def test_dtypes_by_name():
    assert create_model("vit_tiny", dtype="bfloat16").dtype == jnp.bfloat16
    assert create_model("vit_tiny", dtype=jnp.float16, param_dtype=None).dtype == jnp.float16
    for wrong in ("float7", "int32", 3):
        with pytest.raises(ValueError, match="dtype=.*expected a floating dtype"):
            create_model("vit_tiny", dtype=wrong)
