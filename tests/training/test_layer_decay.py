"""Layer-wise learning rates: depths against hand-written tables, scales and updates against their formula."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from vmamba_jax.training.optimization import layer_decay, optimizer

TABLES = {  # beginning of the path -> depth
    ("vmamba_tiny", (("dims", (4, 8)), ("depths", (1, 2)), ("patch_size", 2))): {
        "patch_embed": 0, "layers_0/blocks_0": 1, "downsample_0": 2, "layers_1/blocks_0": 2, "layers_1/blocks_1": 3, "norm": 4, "head": 4},
    ("vmamba_tiny_v0", (("dims", (4, 8)), ("depths", (1, 1)), ("d_state", 2))): {
        "patch_embed": 0, "layers_0/blocks_0": 1, "downsample_0": 2, "layers_1/blocks_0": 2, "norm": 3, "head": 3},
    ("vim_tiny", (("embed_dim", 16), ("depth", 11))): {
        "patch_embed": 0, "pos_embed": 0, "cls_token": 0, **{f"layers_{i}": i + 1 for i in range(11)}, "norm_f": 12, "head": 12},
    ("deit_tiny", (("embed_dim", 12), ("depth", 11))): {
        "patch_embed": 0, "pos_embed": 0, "cls_token": 0, **{f"blocks_{i}": i + 1 for i in range(11)}, "norm": 12, "head": 12},
    ("swin_tiny", (("embed_dim", 12), ("depths", (1, 2, 1, 1)))): {
        "patch_embed": 0, "layers_0/blocks_0": 1, "layers_1/downsample": 2, "layers_1/blocks_0": 2, "layers_1/blocks_1": 3,
        "layers_2/downsample": 4, "layers_2/blocks_0": 4, "layers_3/downsample": 5, "layers_3/blocks_0": 5, "norm": 6, "head": 6},
    ("convnext_tiny", (("dims", (4, 8, 8, 8)), ("depths", (1, 1, 2, 1)))): {
        "stem_0": 0, "stem_1": 0, "stages_0/blocks_0": 1, "stages_1/downsample_0": 2, "stages_1/downsample_1": 2, "stages_1/blocks_0": 2,
        "stages_2/downsample_0": 3, "stages_2/downsample_1": 3, "stages_2/blocks_0": 3, "stages_2/blocks_1": 4, "stages_3/downsample_0": 5,
        "stages_3/downsample_1": 5, "stages_3/blocks_0": 5, "norm": 6, "head": 6},
    ("mambaout_tiny", (("dims", (4, 8)), ("depths", (1, 2)))): {
        "stem": 0, "stages_0/blocks_0": 1, "stages_1/downsample": 2, "stages_1/blocks_0": 2, "stages_1/blocks_1": 3, "norm": 4, "hidden": 4,
        "hidden_norm": 4, "head": 4},
    ("spatialmamba_tiny", (("dims", (4, 8)), ("depths", (1, 2)))): {
        "patch_embed": 0, "layers_0/blocks_0": 1, "downsample_0": 2, "layers_1/blocks_0": 2, "layers_1/blocks_1": 3, "norm": 4, "head": 4},
    ("mambavision_tiny", (("dims", (4, 4, 8)), ("depths", (1, 1, 2)), ("num_heads", (1, 1, 2)), ("windows", (2, 2, 2)))): {
        "patch_embed": 0, "levels_0/blocks_0": 1, "downsample_0": 2, "levels_1/blocks_0": 2, "downsample_1": 3, "levels_2/blocks_0": 3,
        "levels_2/blocks_1": 4, "norm": 5, "head": 5},
    ("resnet18", ()): {
        "conv1": 0, "bn1": 0, "layer1_0": 1, "layer1_1": 2, "layer2_0": 3, "layer2_1": 4, "layer3_0": 5, "layer3_1": 6, "layer4_0": 7,
        "layer4_1": 8, "fc": 9},
    ("efficientnet_lite0", ()): {
        "conv_stem": 0, "bn0": 0, **{f"blocks_{i}": i + 1 for i in range(16)}, "conv_head": 17, "bn1": 17, "fc": 17},
}
CASES = pytest.mark.parametrize("case", TABLES, ids=lambda case: case[0])


@functools.cache
def shapes(name, fields):
    model = vmamba_jax.create_model(name, num_classes=3, **dict(fields))
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))["params"]


def by_path(tree):
    return {"/".join(entry.key for entry in path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@CASES
def test_depths_of_every_family(case):
    table, used = TABLES[case], set()
    for path, depth in by_path(layer_decay.depths(shapes(*case))).items():
        [start] = [start for start in table if path == start or path.startswith(start + "/")]
        assert depth == table[start], path
        used.add(start)
    assert used == set(table)


@pytest.mark.parametrize("name", ["vmamba_tiny", "swin_tiny", "convnext_tiny", "mambaout_tiny", "resnet18"])
def test_depths_of_a_backbone(name):
    """The norms of the maps belong to the head's group."""
    model = vmamba_jax.create_model(name, features_only=True)
    params = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))["params"]
    depths, last = by_path(layer_decay.depths(params)), sum(model.depths) + 1
    assert {path.split("/")[0] for path, depth in depths.items() if depth == last} == {f"outnorm{i}" for i in range(4) if name != "resnet18"}


def test_scales():
    found = by_path(layer_decay.scales(shapes(*next(iter(TABLES))), 0.5))
    assert found["head/kernel"] == found["norm/scale"] == 1 and found["layers_1/blocks_1/op/A_logs"] == 0.5
    assert found["downsample_0/conv/kernel"] == found["layers_1/blocks_0/norm/bias"] == 0.25 and found["patch_embed/conv1/kernel"] == 0.0625


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_updates_and_decay_scale_with_the_rate(name):
    tree = {"patch_embed": {"kernel": jnp.ones((2, 2))}, "blocks_0": {"kernel": jnp.full((2, 2), 2.0)}, "head": {"kernel": jnp.ones((2, 2))}}
    grads = jax.tree.map(lambda x: 0.3 * x, tree)
    make = functools.partial(optimizer.create, name, learning_rate=0.1, weight_decay=0.05, clip_norm=1.0)

    def updates(optim):
        state = optim.init(tree)
        first, state = optim.update(grads, state, tree)
        second, state = optim.update(grads, state, tree)
        return first, second, optimizer.learning_rate(state)
    plain, scaled = (jax.jit(functools.partial(updates, make(layer_decay=decay)))() for decay in (None, 0.7))
    assert float(plain[2]) == float(scaled[2])
    for a, b in zip(plain[:2], scaled[:2], strict=True):
        for top, power in (("head", 0), ("blocks_0", 1), ("patch_embed", 2)):
            np.testing.assert_allclose(b[top]["kernel"], 0.7 ** power * a[top]["kernel"], rtol=1e-6)


@pytest.mark.parametrize("call, message", [
    (lambda: layer_decay.depths({"head": {"kernel": 0}, "unknown": {"kernel": 0}}), "parameter 'unknown/kernel' has no known depth: expected the parameters of one of VMamba"),
    (lambda: layer_decay.scales({"head": 0}, 0.0), "layer_decay=0.0: expected a finite number > 0 and < 1"),
    (lambda: optimizer.create(learning_rate=0.1, layer_decay=1.5), "layer_decay=1.5: expected None or a finite number > 0 and < 1"),
    (lambda: optimizer.create(learning_rate=0.1, layer_decay="0.7"), "layer_decay='0.7': expected None or a finite number > 0 and < 1"),
])
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
