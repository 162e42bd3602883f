"""The network, images and labels of the attacks' oracles."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax


def common_net(arrays, images):
    """The oracles' network, NHWC; its head expects the features flattened in C, H, W order."""
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
