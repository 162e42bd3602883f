"""Tiny models with attention or scans, and random weights under which none of their parts is idle."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.models import VMamba
from vmamba_jax.models.baselines.vit import ViT
from vmamba_jax.models.vim.vim import Vim

VMAMBA = VMamba(num_classes=3, dims=(4,), depths=(2,), d_state=2, patch_size=2, patch_embed="v1")
VIM = Vim(num_classes=3, embed_dim=8, depth=1, patch_size=4, stride=2, d_state=2, class_token="double", image_size=8)
VIT = ViT(num_classes=3, embed_dim=8, depth=4, num_heads=2, patch_size=4, image_size=8)
IMAGES = jax.random.uniform(jax.random.key(0), (2, 8, 12, 3))
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def random_variables(model):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES))
    rng = np.random.default_rng(0)
    drawn = {"params": jax.tree.map(lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32), shapes["params"])}
    statistics = {"batch_stats": jax.tree.map(lambda x: jnp.ones(x.shape), shapes["batch_stats"])} if "batch_stats" in shapes else {}
    return drawn | statistics
