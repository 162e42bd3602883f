"""Equal kernels are traced and lowered once per program, and a process without accelerators traces no more than the xla scan."""
import collections
import re

import jax
import jax.numpy as jnp
import pytest

import pallas_kernels
import vmamba_jax

DEPTHS, DIMS = (3, 2), (32, 64)
CUSTOM_CALL = {"tpu": "tpu_custom_call", "cuda": "mosaic_gpu"}
KERNELS = {   # of one shape: names of the lowered functions that hold a kernel, without the numbers that make them unique
    "tpu": {"forward": 1, "backward": 1},
    "cuda": {"_chunk_ends": 2, "states": 1, "sweep": 1},      # chunk ends of states and of adjoints
}


def gradient(model, size):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.jit(jax.grad(lambda x, v: model.apply(v, x).sum())).trace(images, variables)


def vmamba(**options):
    return vmamba_jax.create_model("vmamba_tiny", depths=DEPTHS, dims=DIMS, num_classes=3, **options)


def kernels(text, platform):
    """Number of kernel bodies by the function that holds them."""
    found, function = collections.Counter(), None
    for line in text.splitlines():
        if match := re.search(r"func\.func \w+ @(\w+?)(_\d+)?\(", line):
            function = match[1]
        found[function] += len(re.findall(rf"custom_call @{CUSTOM_CALL[platform]}", line))
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.often(1)
def test_kernels_of_a_model_are_lowered_once_per_shape(platform):
    with pallas_kernels.platforms(platform):
        text = gradient(vmamba(), 32).lower(lowering_platforms=(platform,)).as_text()
    assert kernels(text, platform) == {name: count * len(DEPTHS) for name, count in KERNELS[platform].items()}


@pytest.mark.parametrize("platform,expected", [("tpu", {"forward": 2, "backward": 2}), ("cuda", {"states": 1, "sweep": 1})])
@pytest.mark.parametrize("family", ["vim", pytest.param("vmamba", marks=pytest.mark.slow)])
def test_scans_of_both_directions_share_kernels(family, platform, expected):
    """Two scans per direction of time, in every block; a GPU kernel serves both directions."""
    model = vmamba_jax.create_model("vim_tiny", depth=3, embed_dim=32, d_state=2, num_classes=3) if family == "vim" else vmamba(d_state=2)
    shapes = 1 if family == "vim" else len(DEPTHS)
    with pallas_kernels.platforms(platform):
        text = gradient(model, 32).lower(lowering_platforms=(platform,)).as_text()
    assert kernels(text, platform) == {name: count * shapes for name, count in expected.items()}


def size(jaxpr):
    """Number of equations of a jaxpr and of every jaxpr inside it."""
    inner = [getattr(x, "jaxpr", x) for equation in jaxpr.eqns
             for x in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"))]
    return len(jaxpr.eqns) + sum(size(x) for x in inner if hasattr(x, "eqns"))


def test_default_traces_as_little_as_xla():
    default, xla = (size(gradient(vmamba(**options), 32).jaxpr.jaxpr) for options in ({}, {"scan_implementation": "xla"}))
    assert xla <= default <= 1.3 * xla
