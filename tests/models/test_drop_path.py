"""Drop path: the rates of every family's blocks, and what a dropped branch is."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from tests.helpers.drop_path import applied_rates
from vmamba_jax.models.layers.common import DropPath

STAGED = dict(dims=(8, 16, 24), depths=(1, 2, 1))
FAMILIES = {  # four blocks each
    "vmamba_tiny": STAGED, "convnext_tiny": STAGED, "mambaout_tiny": STAGED, "spatialmamba_tiny": STAGED,
    "mambavision_tiny": STAGED | dict(num_heads=(1, 1, 1), windows=(2, 2, 2)), "swin_tiny": dict(embed_dim=4, depths=(1, 3), num_heads=(1, 1)),
    "resnet18": dict(layers=(2, 2), channels=(4, 8)), "deit_tiny": dict(embed_dim=12, depth=4), "vim_tiny": dict(embed_dim=16, depth=4)}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("remat", [False, True])
def test_rates_rise_linearly(name, remat):
    """From 0 at the first block to drop_path_rate at the last, as the released code of every family computes them."""
    model = vmamba_jax.create_model(name, drop_path_rate=0.6, remat=remat, **FAMILIES[name])
    np.testing.assert_allclose(list(applied_rates(model).values()), [0, 0.2, 0.4, 0.6], atol=1e-12)
    np.testing.assert_allclose(model.drop_path_rates, [0, 0.2, 0.4, 0.6], atol=1e-12)


def test_rate_of_a_single_block():
    """Vim counts at the receiver, so its only block is dropped; the others start at 0."""
    assert list(applied_rates(vmamba_jax.create_model("vim_tiny", embed_dim=16, depth=1, drop_path_rate=0.6)).values()) == [0.6]
    assert list(applied_rates(vmamba_jax.create_model("deit_tiny", embed_dim=12, depth=1, drop_path_rate=0.6)).values()) == [0.0]


def test_rates_of_efficientnet():
    """i / blocks of the rate, at the blocks that have a shortcut."""
    model = vmamba_jax.create_model("efficientnet_lite0", drop_path_rate=0.32)
    assert len(model.drop_path_rates) == 16
    found = applied_rates(model)
    assert len(found) == 9
    for block, rate in found.items():
        i = int(block.removeprefix("blocks_"))
        assert rate == model.drop_path_rates[i] == pytest.approx(0.02 * i)


def test_branch_is_dropped_or_scaled():
    """For a whole sample: dropped, or scaled by 1 / (1 - rate); unchanged outside of training."""
    x = jnp.ones((4000, 2, 2, 1))
    drop = DropPath(0.25)
    y = np.asarray(drop.apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    assert set(np.unique(y.reshape(4000, -1).std(1))) == {0.0}
    values = y[:, 0, 0, 0]
    np.testing.assert_allclose(np.unique(values), [0, 4 / 3], rtol=1e-6)
    assert abs((values > 0).mean() - 0.75) < 0.03
    np.testing.assert_array_equal(drop.apply({}, x, False), x)
