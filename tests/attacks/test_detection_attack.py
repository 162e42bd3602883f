"""PGD on a detector's losses, on plain functions: moving and fixed proposals, chosen losses, the ball, wrong arguments."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks

IMAGES, OBJECTS, KEY = jnp.full((2, 4, 4, 3), 0.51), {"boxes": jnp.asarray([[[1.0]], [[-1.0]]])}, jax.random.key(0)


def losses(images, objects, keys, proposals=None):
    """Two losses: of the objects, and of the proposals, which are the sign of the images' mean minus one half."""
    if proposals is None:
        proposals = jnp.sign(jax.lax.stop_gradient(images).mean((1, 2, 3)) - 0.5)
    wide = lambda x: x[:, None, None, None]
    return {"object": (2 * images * objects["boxes"][..., None]).mean((1, 2, 3)), "region": (images * wide(proposals)).mean((1, 2, 3))}, proposals


@pytest.mark.parametrize("proposals,sign", [("moving", -1), ("fixed", 1)])
def test_proposals(proposals, sign):
    """From a start where the mean is below one half, moving proposals lead down, those of the clean images up."""
    attack = attacks.detection_pgd(0.1, 3, 0.1, random_start=False, losses=("region",), proposals=proposals)
    found = jax.jit(lambda x: attack(losses, x, OBJECTS, KEY, start=x - 0.05))(IMAGES)
    np.testing.assert_allclose(found, IMAGES + sign * 0.1, atol=1e-6)
    assert attack.passes == (3, int(proposals == "fixed")) and attacks.create(**attack.settings) == attack


def test_every_image_ascends_its_own_sum():
    """All losses by default: the object's outweighs the region's; a targeted attack descends; a random start stays in the ball."""
    found = attacks.detection_pgd(0.1, 3, random_start=False)(losses, IMAGES, OBJECTS, KEY)
    np.testing.assert_allclose(found[:, 0, 0, 0], [0.61, 0.41], atol=1e-6)
    back = attacks.detection_pgd(0.1, 3, random_start=False, targeted=True)(losses, IMAGES, OBJECTS, KEY)
    np.testing.assert_allclose(back[:, 0, 0, 0], [0.41, 0.61], atol=1e-6)
    noisy = attacks.detection_pgd(0.1, 1, 0.01)(losses, IMAGES, OBJECTS, KEY)
    assert np.abs(noisy - IMAGES).max() <= 0.1 + 1e-6 and len(np.unique(np.asarray(noisy))) > 10
    alone = attacks.detection_pgd(0.1, 1, 0.01)(losses, IMAGES[1:], {"boxes": OBJECTS["boxes"][1:]}, jax.random.fold_in(KEY, 1)[None])
    np.testing.assert_array_equal(alone[0], noisy[1])


@pytest.mark.parametrize("change,message", [
    ({"key": None}, "key=None: expected a random key, as anchors"), ({"objects": None}, "objects=NoneType: expected a dict"),
    ({"objects": {"boxes": jnp.zeros((3, 1, 1))}}, r"objects\['boxes'\].shape=\(3, 1, 1\): expected \(2, ...\)"),
    ({"images": IMAGES + 1}, "1.51"), ({"losses": ("mask",)}, "losses='mask': expected some of object, region"),
    ({"losses": ()}, r"losses=\(\): expected at least one"), ({"proposals": "none"}, "proposals='none'"),
    ({"images": IMAGES.astype(jnp.bfloat16)}, "images.dtype=bfloat16: expected float32 or float64")])
def test_errors(change, message):
    options = {name: change[name] for name in ("losses", "proposals") if name in change}
    with pytest.raises((ValueError, TypeError), match=message):
        attacks.detection_pgd(0.1, 1, **options)(losses, change.get("images", IMAGES), change.get("objects", OBJECTS), change.get("key", KEY))
