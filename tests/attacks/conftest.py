"""The network, images and labels of the golden arrays, and a small network for property tests."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.two_layer_net import net


def common_net(arrays, images):
    """The network of the golden arrays, NHWC; its head expects features flattened in C, H, W order."""
    x = images
    for name in ("c1", "c2"):
        kernel = arrays[f"w_{name}_w"].transpose(2, 3, 1, 0)
        x = lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + arrays[f"w_{name}_b"])
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ arrays["w_fc_w"].T + arrays["w_fc_b"]


@pytest.fixture
def oracle(golden):
    """`oracle(name)` -> (arrays, logits_fn, images NHWC, labels)."""
    def load(name):
        arrays = golden(name)
        net = jax.tree_util.Partial(common_net, {k: jnp.asarray(v) for k, v in arrays.items() if k.startswith("w_")})
        return arrays, net, jnp.asarray(np.moveaxis(arrays["x"], 1, -1)), jnp.asarray(arrays["y"])
    return load


@pytest.fixture(scope="session")
def tiny():
    """(logits_fn of five classes, 12 images of 5 x 4 x 2, labels): all as predicted but the last image's."""
    a, b, c = jax.random.split(jax.random.key(0), 3)
    logits_fn = jax.tree_util.Partial(net, (0.5 * jax.random.normal(a, (40, 16)), jax.random.normal(b, (16, 5))))
    images = jax.random.uniform(c, (12, 5, 4, 2))
    predicted = logits_fn(images).argmax(1).astype(jnp.int32)
    return logits_fn, images, predicted.at[-1].add(1) % 5


@pytest.fixture(scope="session")
def check_search():
    """`check_search(attack, tiny)` -> which images were misclassified; it checks ball, box, unchanged images and independence of the batch."""
    def check(attack, tiny, key=7):
        net, images, labels = tiny
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(key), i))(jnp.arange(12))
        run = jax.jit(lambda images, labels, keys: attack(net, images, labels, keys))
        found = np.asarray(run(images, labels, keys))
        order = np.arange(12)[::-1]
        np.testing.assert_allclose(run(images[order], labels[order], keys[order])[order], found, atol=1e-6)
        assert found.dtype == images.dtype and found.min() >= 0 and found.max() <= 1
        change = (found - np.asarray(images)).reshape(12, -1)
        length = np.linalg.norm(change, {"linf": np.inf, "l2": 2, "l1": 1}[attack.norm], axis=1)
        assert (length <= attack.eps * (1 + 1e-5)).all()
        broken = np.asarray(net(found)).argmax(1) != labels
        np.testing.assert_array_equal(length > 0, broken & (np.arange(12) < 11))  # the clean image if nothing was found or needed
        return broken
    return check
