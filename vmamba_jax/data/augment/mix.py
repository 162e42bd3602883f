"""Mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899) on the device, with timm 0.4.12's choices.

    mix = data.mix.create(mixup=0.8, cutmix=1.0)
    images, targets = mix(images, labels, key, num_classes=1000)

An image's partner is its mirror in the batch: the first is mixed with the last. On several devices that is the device's own batch.
"""

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.core.keys import image_keys

MODES = ("batch", "pair", "elem")
_STREAM = 0x6D6978  # folded into the images' keys, which augmentation uses too


def create(mixup=0.8, cutmix=1.0, probability=1.0, switch_probability=0.5, mode="batch", correct_lam=True, label_smoothing=0.1):
    """A function `mix(images, labels, key, num_classes) -> (images, targets)`, pure and jit-able.

    mixup, cutmix: parameter a of the Beta(a, a) that an image's own share lam is drawn from; 0 leaves that one out; without both
        only labels are smoothed.
    probability: of mixing at all. switch_probability: of CutMix where both are on.
    mode: "batch" draws once for all images, "pair" once for an image and its partner, "elem" for every image.
    correct_lam: for the targets, lam becomes the share of pixels that CutMix left, as boxes are cut at the image's border.
    label_smoothing: s in [0, 1), the targets are mixed from (1 - s) * one-hot + s / num_classes.

    images: (B, H, W, C), floating, B even. labels: (B,) integers, or (B, num_classes) distributions. key: one, or B of them, of which
    "batch" uses the first and "pair" the first half. targets: (B, num_classes), in float32 or the images' wider dtype.
    """
    for name, value, high in (("mixup", mixup, None), ("cutmix", cutmix, None), ("probability", probability, 1.0),
                              ("switch_probability", switch_probability, 1.0), ("label_smoothing", label_smoothing, 1.0)):
        checks.number(name, value, low=0, high=high)
    checks.choice("mode", mode, MODES)
    if label_smoothing == 1:
        raise ValueError(f"label_smoothing must be below 1, got {label_smoothing!r}")

    mixes = bool(mixup or cutmix)
    draws = mode if mixes else "batch"

    def draw(key, h, w):
        some, switch, cut_share, mix_share, place = jax.random.split(key, 5)
        cuts = jax.random.bernoulli(switch, switch_probability) if mixup and cutmix else jnp.asarray(bool(cutmix))
        lam = jnp.where(cuts, _beta(cut_share, cutmix), _beta(mix_share, mixup))
        lam = jnp.where(jax.random.bernoulli(some, probability), lam, 1.0)
        return lam, cuts, jax.random.randint(place, (2,), 0, jnp.array([h, w]))

    def mix(images, labels, key, num_classes):
        n = len(images)
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating) or (mixes and n % 2):
            raise ValueError(f"images must be (B, H, W, C) of a floating dtype with even B, got shape {images.shape} of {images.dtype}")
        keys = jax.vmap(jax.random.fold_in, (0, None))(image_keys(key, n), _STREAM)
        keys = keys[:{"batch": 1, "pair": n // 2, "elem": n}[draws]]
        lam, cuts, centres = jax.vmap(draw, (0, None, None))(keys, *images.shape[1:3])
        if draws == "pair":
            lam, cuts, centres = (jnp.concatenate([x, x[::-1]]) for x in (lam, cuts, centres))
        lam, cuts, centres = (jnp.broadcast_to(x, (n, *x.shape[1:])) for x in (lam, cuts, centres))
        return blend(images, labels, lam, cuts, centres, num_classes, correct_lam=correct_lam, label_smoothing=label_smoothing)

    return mix


def blend(images, labels, lam, cuts, centres, num_classes, *, correct_lam=True, label_smoothing=0.1):
    """Mix images and labels with given draws.

    lam: (B,), an image's own share. cuts: (B,) booleans, CutMix in place of mixup. centres: (B, 2) ints, row and column of the cut box's centre.
    Returns (images, targets), see `create`.
    """
    (h, w), dtype = images.shape[1:3], jnp.promote_types(images.dtype, jnp.float32)
    top, left, bottom, right = boxes(lam, centres, h, w)
    inside = _between(jnp.arange(h), top, bottom)[:, :, None] & _between(jnp.arange(w), left, right)[:, None, :]  # (B, H, W)
    kept = 1 - (bottom - top) * (right - left) / (h * w)
    share = lam.astype(images.dtype)[:, None, None, None]
    mixed = share * images + (1 - share) * images[::-1]
    cut = jnp.where(inside[..., None], images[::-1], images)
    lam = jnp.where(cuts, kept, lam) if correct_lam else lam
    targets = labels.astype(dtype) if labels.ndim == 2 else jax.nn.one_hot(labels, num_classes, dtype=dtype)
    if targets.shape != (len(images), num_classes):
        raise ValueError(f"labels must be ({len(images)},) integers or ({len(images)}, {num_classes}) distributions, got shape {labels.shape}")
    targets = (1 - label_smoothing) * targets + label_smoothing / num_classes
    lam = lam.astype(dtype)[:, None]
    return jnp.where(cuts[:, None, None, None], cut, mixed), lam * targets + (1 - lam) * targets[::-1]


def boxes(lam, centres, h, w):
    """(top, left, bottom, right), each (B,), of boxes with sides sqrt(1 - lam) of the image's, cut off at its border.

    Half a side is rounded down on both sides of the centre, as in timm 0.4.12; later releases of timm give odd sides one pixel more.
    """
    side = jnp.sqrt(1 - lam)
    half = jnp.stack([jnp.floor(h * side), jnp.floor(w * side)], -1).astype(jnp.int32) // 2
    last = jnp.array([h, w])
    low, high = jnp.clip(centres - half, 0, last), jnp.clip(centres + half, 0, last)
    return low[:, 0], low[:, 1], high[:, 0], high[:, 1]


def _beta(key, a):
    return jax.random.beta(key, a, a) if a else jnp.ones(())


def _between(i, low, high):
    return (i >= low[:, None]) & (i < high[:, None])
