"""Patch-Fool against golden arrays in float64; only the patches change, per image, within bounds, for any model."""
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

from vmamba_jax import attacks, parallel
from vmamba_jax.attacks.patch_fool import optimization, selection
from vmamba_jax.core import grids

ATTENTION = {"mode": "attention", "selection": "attention"}
VARIANTS = {
    "ce_sal_p1": {}, "ce_sal_p4": {"patches": 4}, "ce_attn_p1": {"selection": "attention"},
    "att_attn_p1": ATTENTION, "att_attn_p2": ATTENTION | {"patches": 2}, "att_attn_p1_alpha1": ATTENTION | {"attention_weight": 1},
    "att_attn_p1_exactpc": ATTENTION | {"surgery": "exact"}, "att_attn_p1_alpha1_exactpc": ATTENTION | {"surgery": "exact", "attention_weight": 1},
    "ce_sal_p2_linf0.1": {"patches": 2, "mild_norm": "linf", "mild_eps": 0.1}, "ce_sal_p2_l2_1": {"patches": 2, "mild_norm": "l2", "mild_eps": 1},
    "ce_sal_p4_sparse20": {"patches": 4, "sparse": 20, "sparse_steps": 40},
    "att_attn_p4_sparse20": ATTENTION | {"patches": 4, "sparse": 20, "sparse_steps": 40},
}


def layer_norm(x, scale, bias):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias


def vit(arrays, images):
    """The golden file's network: [0, 1] images -> (logits, attention). 4 blocks, 2 heads, patches of 4 x 4."""
    block = lambda i: {name: arrays[f"w_b{i}_{name}"] for name in ("n1w", "n1b", "qkv_w", "qkv_b", "proj_w", "proj_b", "n2w", "n2b", "fc1_w",
                                                                  "fc1_b", "fc2_w", "fc2_b")}
    x = (images - arrays["mean"]) / arrays["std"]
    cut = x.reshape(len(x), 4, 4, 4, 4, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(x), 16, -1)
    x = cut @ arrays["w_patch_w"].reshape(16, -1).T + arrays["w_patch_b"]
    x = jnp.concatenate([jnp.broadcast_to(arrays["w_cls"], (len(x), 1, 16)), x], 1) + arrays["w_pos"]

    def layer(x, w):
        q, k, v = jnp.moveaxis((layer_norm(x, w["n1w"], w["n1b"]) @ w["qkv_w"].T + w["qkv_b"]).reshape(len(x), 17, 3, 2, 8), 2, 0)
        attention = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5)
        x = x + jnp.einsum("bhqk,bkhd->bqhd", attention, v).reshape(x.shape) @ w["proj_w"].T + w["proj_b"]
        hidden = jax.nn.gelu(layer_norm(x, w["n2w"], w["n2b"]) @ w["fc1_w"].T + w["fc1_b"], approximate=False)
        return x + hidden @ w["fc2_w"].T + w["fc2_b"], attention
    x, attention = jax.lax.scan(layer, x, jax.tree.map(lambda *w: jnp.stack(w), *map(block, range(4))))
    return layer_norm(x, arrays["w_nw"], arrays["w_nb"])[:, 0] @ arrays["w_head_w"].T + arrays["w_head_b"], attention


def vit_logits(arrays, images):
    return vit(arrays, images)[0]


def nhwc(x):
    return np.moveaxis(x, 1, -1)


def setting(golden):
    arrays = golden("attacks_patchfool_f64")
    weights = {k: jnp.asarray(v) for k, v in arrays.items() if k.startswith("w_") or k in ("mean", "std")}
    return arrays, weights, jnp.asarray(nhwc(arrays["x"]) * arrays["std"] + arrays["mean"]), jnp.asarray(arrays["y"])


def golden_attack(weights, steps=1, **options):
    """The file's means are over 8 images, its attention that of layer 2."""
    return attacks.patch_fool(4, steps=steps, mean_over=8, attention_layer=2, with_attention=Partial(vit, weights), **options)


def first_scores(arrays, index):
    """The file's first scores of pixels, patch by patch, on the map."""
    scores = np.zeros((8, 4, 4, 4, 4))
    for image, chosen in enumerate(index):
        for i in chosen:
            scores[image, i // 4, :, i % 4] = arrays["u_mask"][image, i]
    return jnp.asarray(scores.reshape(8, 16, 16, 1))


def test_network_and_selection(golden, x64):
    arrays, weights, images, labels = setting(golden)
    logits, attention = vit(weights, images)
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-12)
    np.testing.assert_allclose(attention, arrays["attn"], atol=1e-12)
    for by, name, scale in (("saliency", "saliency", 8 * 16), ("attention", "attn", 1)):  # means over images and the pixels of a patch
        attack = golden_attack(weights, patches=4, selection=by)
        scores = jax.jit(attack.scores)(Partial(vit_logits, weights), images, labels)
        np.testing.assert_allclose(scores, scale * arrays[f"score_{name}"], atol=1e-12)
        np.testing.assert_array_equal(selection.strongest(scores, 4), arrays[f"idx_{name}"])


@jax.jit
def search(attack, weights, images, labels, index, start, scores):
    return attack.search(Partial(vit_logits, weights), images, labels, index, start, scores)


@pytest.mark.parametrize("steps", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5)), 50])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.often(3)
def test_golden(golden, x64, name, steps):
    """Adversarial images, the pixels replaced, and the mean cross-entropy at each step, from the file's random numbers."""
    arrays, weights, images, labels = setting(golden)
    options = {"patches": 1, "selection": "saliency"} | VARIANTS[name]
    index = arrays["idx_attn" if options["selection"] == "attention" else "idx_saliency"][:, :options["patches"]]
    scores = first_scores(arrays, index)
    index = np.concatenate([index, index[:, :1].repeat(4 - index.shape[1], 1)], 1)  # one program serves 1, 2 and 4 patches
    options |= {"patches": 4, "selection": "given"}
    if steps < 10:  # one program serves 5 steps and 1, in which decay = 0 ends the motion
        options |= {"decay_every": 1, "decay": float(steps > 1)} | ({"sparse_learning_rate": 0} if steps == 1 else {})
    attack = golden_attack(weights, max(steps, 5), **options)
    adversarial, mask, trace = search(attack, weights, images, labels, jnp.asarray(index), jnp.asarray(nhwc(arrays["u"])), scores)
    # in one image of the l2 run rounding grows tenfold every four steps
    atol = 1e-6 if name == "ce_sal_p2_l2_1" and steps == 50 else 1e-8
    np.testing.assert_allclose((adversarial - arrays["mean"]) / arrays["std"], nhwc(arrays[f"{name}_it{steps}"]), atol=atol, rtol=0)
    np.testing.assert_allclose(trace.mean(1)[:steps], arrays[f"{name}_ce{steps}"], atol=atol, rtol=0)
    np.testing.assert_array_equal(mask, nhwc(arrays[f"{name}_mask{steps}"]) != 0)


def net(weights, images):
    """Three classes; the left and right half of an image go through different weights."""
    left, right = jnp.split(images, 2, axis=2)
    a, b = weights
    return jnp.tanh(left.reshape(len(images), -1) @ a.astype(images.dtype)) + jnp.tanh(right.reshape(len(images), -1) @ b.astype(images.dtype))


def weights(seed=0):
    a, b = jax.random.split(jax.random.key(seed))
    return 0.3 * jax.random.normal(a, (32, 3)), 0.3 * jax.random.normal(b, (32, 3))


@functools.cache
def examples(first=0):
    """(logits_fn, images first ... first + 5 of 4 x 8 pixels and two channels, labels as predicted)."""
    images = jax.random.uniform(jax.random.key(1), (9, 4, 8, 2))[first:first + 6]
    return Partial(net, weights()), images, net(weights(), images).argmax(1).astype(jnp.int32)


def attend(weights, images):
    """The network with four layers of two heads, whose attention is that of the patches' mean values."""
    tokens = images.reshape(len(images), 2, 2, 4, 2, 2).mean((2, 4)).reshape(len(images), 8, 2)
    tokens = jnp.concatenate([0 * tokens[:, :1], tokens], 1)
    attention = jnp.stack([jax.nn.softmax(sign * 3 * jnp.einsum("bqc,bkc->bqk", tokens, tokens)) for sign in (1, -1)], 1)
    return net(weights, images), (attention,) * 4


MADE = {
    "plain": {"patches": 3}, "random": {"selection": "random", "patches": 2, "std": 1, "mean": 0}, "one by one": {"patch_size": 1, "patches": 5},
    "attention": ATTENTION | {"patches": 2, "attention_layer": -1, "with_attention": Partial(attend, weights())},
    "sparse": {"patches": 3, "sparse": 5, "sparse_gradient": "exact", "sparse_steps": 4}, "linf": {"mild_norm": "linf", "mild_eps": 0.1},
    "random pixels, l2": {"patches": 2, "sparse": 6, "sparse_steps": 0, "mild_norm": "l2", "mild_eps": 0.3},
}


def make(name):
    return attacks.create("patch_fool", **{"patch_size": 2, "steps": 6, "mean": (0.5, 0.4), "std": (0.2, 0.3)} | MADE[name])


@functools.cache
def run():
    return jax.jit(lambda attack, *args: attack(*args))


@functools.cache
def outcome(name):
    return np.asarray(run()(make(name), *examples(), jax.random.key(2)))


@pytest.mark.parametrize("name", MADE)
@pytest.mark.often(3)
def test_only_patches_change(name):
    """The requested number of patches and pixels per image, inside the box and the radius, with increasing loss."""
    logits_fn, images, labels = examples()
    attack, adversarial = make(name), outcome(name)
    assert adversarial.shape == images.shape and adversarial.min() >= 0 and adversarial.max() <= 1
    change = adversarial - np.asarray(images)
    changed, size = (change != 0).any(3), attack.patch_size
    touched = changed.reshape(6, 4 // size, size, 8 // size, size).any((2, 4)).reshape(6, -1)
    if attack.sparse:
        assert (changed.sum((1, 2)) == attack.sparse).all() and (touched.sum(1) <= attack.patches).all()
    else:
        assert (touched.sum(1) == attack.patches).all() and (changed.sum((1, 2)) == attack.patches * size**2).all()
    assert len(np.unique(touched, axis=0)) > 1
    if attack.mild_norm:
        order = np.abs(change).max() if attack.mild_norm == "linf" else np.sqrt((change**2).sum((1, 2))).max()
        assert 0.5 * attack.mild_eps < order <= attack.mild_eps * (1 + 1e-5)
    loss = lambda x: np.mean(attacks.losses.cross_entropy(logits_fn(x), labels))
    assert loss(adversarial) > loss(images)


@pytest.mark.parametrize("name", ["plain", "random", "attention", "sparse"])
def test_independent_of_batching(name):
    """Images shared by two batches get equal results from their own keys; the attack traces under shard_map."""
    key, attack, whole = jax.random.key(2), make(name), outcome(name)
    other = run()(attack, *examples(3), attacks.per_image_keys(key, 6, offset=3))
    np.testing.assert_allclose(other[:3], whole[3:], atol=1e-5)
    assert np.abs(run()(attack, *examples(3), attacks.per_image_keys(key, 6))[:3] - whole[3:]).max() > 0.1

    def local(x, y):
        return attack(examples()[0], x, y, attacks.per_image_keys(key, len(x), offset=len(x) * jax.lax.axis_index("data")))
    mesh = parallel.data_mesh(jax.devices()[:2])
    jax.eval_shape(jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=True), *examples()[1:])


def test_chosen_patches():
    """Given patches are used in order; random patches differ; a map of attention is summed over each patch."""
    logits_fn, images, labels = examples()
    given = jnp.array([[7, 0]] * 6)
    attack = attacks.patch_fool(2, 2, 1, selection="given", std=1, mean=0)
    changed = np.asarray(jax.jit(attack)(logits_fn, images, labels, jax.random.key(0), given=given) != images).any(3)
    np.testing.assert_array_equal(changed[0], np.kron([[1, 0, 0, 0], [0, 0, 0, 1]], np.ones((2, 2))))
    drawn = selection.random(attacks.per_image_keys(jax.random.key(0), 400), 8, 3)
    assert (np.sort(drawn, 1)[:, 1:] > np.sort(drawn, 1)[:, :-1]).all()
    assert (np.abs(np.bincount(np.ravel(drawn), minlength=8) - 150) < 50).all()
    paid = np.arange(2 * 4 * 8.0).reshape(2, 4, 8)
    np.testing.assert_array_equal(selection.received(paid, 2, 4, 1)[1, 5], paid[1, 2:, 2:4].sum())
    mask = grids.pixel_mask(grids.chosen_patches(np.array([[1]]), 3, 2), 6, 4)
    np.testing.assert_array_equal(mask[0, :, :, 0], np.kron([[0, 1], [0, 0], [0, 0]], np.ones((2, 2))))


def test_attention_is_attracted():
    """A large weight in mode "attention" increases the attention to the patch; one program, as the weight is a leaf."""
    def paid(weight):
        attack = dataclasses.replace(make("attention"), learning_rate=1.0, attention_weight=weight, surgery="exact", patches=1)
        attention = attend(weights(), run()(attack, *examples(), jax.random.key(2)))[1][1]
        chosen = attack.choose(*examples(), None)[:, 0]
        return float(selection.paid(attention, chosen + 1).mean())
    assert paid(100.0) > paid(0.0) + 0.1


def test_surgery():
    """Against (3, 0): rows at 45 degrees along and against it, and one against only the sum of the two before."""
    rows = jnp.array([[3, 0], [1, 1], [-1, 1], [0.5, -1]], jnp.float32)[:, None]
    attack = attacks.patch_fool(surgery="exact", attention_weight=1)
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    close(optimization.combined(rows, attack)[0], [3 + 1 + 0 + 0.5, 0 + 1 + 1 - 1])
    released = dataclasses.replace(attack, surgery="released")
    close(optimization.combined(rows[:3], released)[0], [3 + 1 + (-1 + 3), 2])   # -1 has (-1 * 3 / 3) * 3 taken away
    total = np.array([4.0, 1.0])
    close(optimization.combined(rows[:3], attack, against_sum=True)[0], total + [-1, 1] + 3 / 17 * total)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float64])
def test_keeps_dtype(dtype, x64):
    logits_fn, images, labels = examples()
    out = jax.eval_shape(lambda x: make("sparse")(logits_fn, x, labels, jax.random.key(0)), images.astype(dtype))
    assert out.dtype == dtype and out.shape == images.shape


def test_settings():
    """Settings make the attack again, except for the function; numbers are leaves and may be traced."""
    attack = make("attention")
    again = attacks.create(**json.loads(json.dumps(attack.settings)))
    assert dataclasses.replace(again, with_attention=attack.with_attention) == attack and "with_attention" not in attack.settings
    assert hash(make("sparse")) == hash(attacks.create(**make("sparse").settings)) and make("sparse") != make("linf")
    assert repr(attacks.patch_fool()).startswith("patch_fool(patch_size=16, patches=1, steps=250, learning_rate=0.22, mode='cross_entropy'")
    assert (attacks.patch_fool().norm, make("linf").norm, make("linf").eps) == ("patches", "linf", 0.1)
    tighter = np.asarray(run()(dataclasses.replace(make("linf"), mild_eps=0.02), *examples(), jax.random.key(2)))
    assert 0 < np.abs(tighter - examples()[1]).max() <= 0.02 * (1 + 1e-5)


@pytest.mark.parametrize(("error", "options", "text"), [
    (ValueError, {"patch_size": 3}, "patch_size=3 on images of 4 x 8"), (ValueError, {"patches": 9}, "patches=9 on a grid of 2 x 4"),
    (TypeError, {"patch_size": 2.0}, "patch_size=2.0"), (ValueError, {"steps": 0}, "steps=0"), (ValueError, {"mode": "attn"}, "mode='attn'"),
    (ValueError, {"selection": "best"}, "selection='best'"), (ValueError, {"surgery": "none"}, "surgery='none'"),
    (ValueError, {"sparse": 5}, "sparse=5"), (TypeError, {"sparse": 2.5}, "sparse=2.5"), (ValueError, {"sparse_steps": -1}, "sparse_steps=-1"),
    (ValueError, {"mild_eps": 0.1}, "mild_norm=None, mild_eps=0.1"), (ValueError, {"mild_norm": "l1", "mild_eps": 1}, "mild_norm='l1'"),
    (ValueError, {"std": (1, 0)}, "std=(1.0, 0.0)"), (ValueError, {"std": (1, 1, 1)}, "std=(1.0, 1.0, 1.0) for images of 2 channels"),
    (ValueError, {"bounds": (1, 0)}, "bounds=(1.0, 0.0)"), (TypeError, {"bounds": 1}, "bounds=1"), (ValueError, {"decay": -1}, "decay=-1.0"),
    (ValueError, ATTENTION, "with_attention=None"), (TypeError, {"with_attention": 3}, "with_attention=3"),
    (TypeError, ATTENTION | {"with_attention": lambda x: x}, "with_attention returned"),
    (ValueError, ATTENTION | {"with_attention": lambda x: (x, x[:3])}, "attention_layer=4"),
    (ValueError, {"selection": "attention", "class_tokens": 0, "attention_layer": 0, "with_attention": Partial(attend, weights())}, "class_tokens=0"),
    (ValueError, {"selection": "attention", "attention_layer": 0, "with_attention": lambda x: (x, [x[:, :3, :, 0]])},
     "attention.shape=(6, 3, 8)"),
    (ValueError, {"mode": "attention", "with_attention": lambda x: (net(weights(), x), [x[..., 0]] * 6)}, "layers of shapes [(6, 4, 8)"),
    (ValueError, {"selection": "given"}, "given=None"), (ValueError, {"given": jnp.zeros((6, 1), int)}, "given=(6, 1)"),
    (ValueError, {"selection": "given", "given": jnp.zeros((6, 2), int)}, "given=int32(6, 2)"), (ValueError, {"key": None}, "key=None"),
])
def test_bad_arguments(error, options, text):
    call = {"key": jax.random.key(0), **{name: options[name] for name in ("given", "key") if name in options}}
    with pytest.raises(error, match="expected") as raised:
        made = attacks.patch_fool(**{"patch_size": 2, "std": 1, "mean": 0} | {k: v for k, v in options.items() if k not in call})
        made(*examples(), **call)
    assert text in str(raised.value)
