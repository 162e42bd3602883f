"""Correlation maps, vectors, templates and losses against the released program's arrays, in float64."""
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax.core import state_correlation as sc

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def arrays(golden):
    return golden("mender_static")


def close(ours, released):
    np.testing.assert_allclose(ours, released, rtol=1e-9, atol=1e-12)


def directions(arrays, name, layer):
    """Values and gradients (b, 2, L, D) of one layer; the released backward direction is in reversed token order."""
    flipped = lambda x: x[..., ::-1]
    return [jnp.moveaxis(jnp.stack([arrays[f"{name}/{x}0"][layer], flipped(arrays[f"{name}/{x}1"][layer])], 1), -1, -2) for x in "ag"]


def tokens(arrays):
    """Correlation of two states, mean over two layers, (b, 17) with the class token at 8."""
    return sum(sc.external_tokens(*directions(arrays, f"ext/{name}", layer)) for name in "cs" for layer in range(2)) / 2


def test_external_tokens_maps_and_loss(arrays):
    for name in "cs":
        for layer in range(2):
            close(sc.external_tokens(*directions(arrays, f"ext/{name}", layer)), arrays[f"ext/{name}/corr"][layer].mean(1))
    found = tokens(arrays)
    close(jnp.delete(found, 8, 1), arrays["ext/e_tokens"])
    maps = sc.external_maps(found, (4, 4), (32, 32), (8,))
    close(maps, arrays["ext/e_map"][:, 0])
    close(sc.external_loss(maps, arrays["ext/foreground"][:, 0]).mean(), arrays["ext/loss_alpha1"])
    close(1e7 * sc.external_loss(maps, arrays["ext/foreground"][:, 0]).mean(), arrays["ext/loss_alpha1e7"])


def test_normalized_maps(arrays):
    maps = arrays["ext/score/e_map_layer0_s"][:, 0]
    close(sc.normalized(maps), arrays["ext/score/e_norm"][:, 0])
    close(sc.normalized(maps, quantized=True), arrays["ext/score/e_norm_u8"][:, 0])
    np.testing.assert_array_equal(sc.normalized(jnp.full((1, 4, 4), 3.0)), np.zeros((1, 4, 4)))


def test_internal_vectors_and_templates(arrays):
    for layer in range(2):
        for k in range(3):
            states = [jnp.moveaxis(arrays[f"int/{x}"][layer, k], -1, -2)[:, None] for x in "ag"]
            vectors = sc.internal_vectors(*states, class_positions=(8,))
            close(vectors[:, 0], arrays["int/vec"][layer, k])
            np.testing.assert_array_equal(sc.template(vectors)[0], arrays["int/template_beta0.3"][layer, k])


def test_internal_loss(arrays):
    states = [jnp.moveaxis(arrays[f"int/loss/{x}"], -1, -2) for x in "ag"]  # (layers, b, L, D)
    labels = arrays["int/loss/labels"]
    vectors = [sc.internal_vectors(a[:, None], g[:, None], (8,)) for a, g in zip(*states, strict=True)]
    close(jnp.stack(vectors)[:, :, 0], arrays["int/loss/vec"])
    losses = [sc.internal_loss(v, arrays["int/template_beta0.3"][layer][labels][:, None]).mean() for layer, v in enumerate(vectors)]
    close(np.mean(losses), arrays["int/loss/value_w1"])
    close(1e7 * np.mean(losses), arrays["int/loss/value_w1e7"])


def test_directions_add_to_the_internal_loss():
    vectors = jnp.ones((1, 2, 3))
    np.testing.assert_allclose(sc.internal_loss(vectors, jnp.zeros((1, 2, 3))), [2.0])


def test_vmamba_layout(arrays):
    flat = lambda x: x.reshape(3, 1, 16, 6)
    states = {name: [flat(np.moveaxis(arrays[f"vm/{name}/{x}"], 1, -1) if name in "xc" else arrays[f"vm/{name}/{x}"]) for x in "ag"]
              for name in "xcsz"}
    found = sum(sc.external_tokens(*states[name]) for name in "cs")
    close(found, arrays["vm/e_tokens_cs"])
    maps = sc.external_maps(found, (4, 4), (32, 32))
    close(maps, arrays["vm/e_map_cs"][:, 0])
    close(sc.external_loss(maps, arrays["ext/foreground"][:, 0]).mean(), arrays["vm/loss_ext_alpha1"])
    vectors = sc.internal_vectors(*states["x"])
    close(vectors[:, 0], arrays["vm/int_vec_x"][0])
    close(sc.internal_loss(vectors, arrays["vm/int_mask"][0][arrays["vm/labels"]][:, None]).mean(), arrays["vm/loss_int_w1"])


def test_errors():
    with pytest.raises(ValueError, match=r"grid=\(3, 3\): expected 16 tokens"):
        sc.external_maps(jnp.zeros((1, 17)), (3, 3), (8, 8), (8,))
    with pytest.raises(ValueError, match="beta=1.0: expected a finite number >= 0 and < 1"):
        sc.template(jnp.zeros((2, 3)), 1)
