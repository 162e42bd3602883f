"""Mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899) of a batch on the device, as in timm 0.4.12.

    mix = data.mix.create(mixup=0.8, cutmix=1.0)
    images, targets = mix(images, labels, key, num_classes=1000)

Image i is mixed with image B - 1 - i, its partner, of the same device's batch.
"""
import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.core.keys import image_keys

MODES = ("batch", "pair", "elem")
_STREAM = 0x6D6978  # folded into the images' keys, which the augmentation uses too


def create(mixup=0.8, cutmix=1.0, probability=1.0, switch_probability=0.5, mode="batch", correct_lam=True, label_smoothing=0.1):
    """A pure, jit-able function `mix(images, labels, key, num_classes) -> (images, targets)`.

    images: (B, H, W, C), floating, B even. labels: (B,) integers, or (B, num_classes) distributions. key: one, or B of them, of which
    mode "batch" uses the first and "pair" the first half. targets: (B, num_classes), float32 or the images' dtype if that is wider.

    Args:
        mixup, cutmix: parameter a of the Beta(a, a) distribution of lam, an image's own weight; 0: off. With both off, only labels are smoothed.
        probability: of mixing.
        switch_probability: of CutMix if both are on.
        mode: "batch" draws once for all images, "pair" once for an image and its partner, "elem" once for every image.
        correct_lam: for the targets of CutMix, lam is the fraction of the image's own pixels, since boxes are clipped at the border.
        label_smoothing: s in [0, 1); the targets are mixed from (1 - s) * one-hot + s / num_classes.
    """
    for name, value, high in (("mixup", mixup, None), ("cutmix", cutmix, None), ("probability", probability, 1.0),
                              ("switch_probability", switch_probability, 1.0), ("label_smoothing", label_smoothing, 1.0)):
        checks.number(name, value, low=0, high=high)
    checks.choice("mode", mode, MODES)
    if label_smoothing == 1:
        raise ValueError(f"label_smoothing={label_smoothing!r}: expected less than 1")

    mixes = bool(mixup or cutmix)
    draws = mode if mixes else "batch"

    def draw(key, h, w):
        mixing, switch, cut_key, mix_key, place = jax.random.split(key, 5)
        cuts = jax.random.bernoulli(switch, switch_probability) if mixup and cutmix else jnp.asarray(bool(cutmix))
        lam = jnp.where(cuts, _beta(cut_key, cutmix), _beta(mix_key, mixup))
        lam = jnp.where(jax.random.bernoulli(mixing, probability), lam, 1.0)
        return lam, cuts, jax.random.randint(place, (2,), 0, jnp.array([h, w]))

    def mix(images, labels, key, num_classes):
        n = len(images)
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating) or (mixes and n % 2):
            raise ValueError(f"images of shape {images.shape} and {images.dtype}: expected (B, H, W, C) of a floating type with even B")
        if labels.ndim != 2:
            checks.classes(labels, n, num_classes)
        keys = jax.vmap(jax.random.fold_in, (0, None))(image_keys(key, n), _STREAM)
        keys = keys[:{"batch": 1, "pair": n // 2, "elem": n}[draws]]
        lam, cuts, centers = jax.vmap(draw, (0, None, None))(keys, *images.shape[1:3])
        if draws == "pair":
            lam, cuts, centers = (jnp.concatenate([x, x[::-1]]) for x in (lam, cuts, centers))
        lam, cuts, centers = (jnp.broadcast_to(x, (n, *x.shape[1:])) for x in (lam, cuts, centers))
        return blend(images, labels, lam, cuts, centers, num_classes, correct_lam=correct_lam, label_smoothing=label_smoothing)

    return mix


def blend(images, labels, lam, cuts, centers, num_classes, *, correct_lam=True, label_smoothing=0.1):
    """(images, targets) mixed by given draws, see `create`.

    Args:
        images, labels, num_classes, correct_lam, label_smoothing: see `create`.
        lam: (B,), an image's own weight.
        cuts: (B,) booleans, CutMix instead of mixup.
        centers: (B, 2) integers, row and column of the cut box's center.
    """
    (h, w), dtype = images.shape[1:3], jnp.promote_types(images.dtype, jnp.float32)
    top, left, bottom, right = boxes(lam, centers, h, w)
    inside = _between(jnp.arange(h), top, bottom)[:, :, None] & _between(jnp.arange(w), left, right)[:, None, :]  # (B, H, W)
    own = 1 - (bottom - top) * (right - left) / (h * w)
    weight = lam.astype(images.dtype)[:, None, None, None]
    mixed = weight * images + (1 - weight) * images[::-1]
    cut = jnp.where(inside[..., None], images[::-1], images)
    lam = jnp.where(cuts, own, lam) if correct_lam else lam
    targets = labels.astype(dtype) if labels.ndim == 2 else jax.nn.one_hot(labels, num_classes, dtype=dtype)
    if targets.shape != (len(images), num_classes):
        raise ValueError(f"labels of shape {labels.shape}: expected ({len(images)},) integers or ({len(images)}, {num_classes}) distributions")
    targets = (1 - label_smoothing) * targets + label_smoothing / num_classes
    lam = lam.astype(dtype)[:, None]
    return jnp.where(cuts[:, None, None, None], cut, mixed), lam * targets + (1 - lam) * targets[::-1]


def boxes(lam, centers, h, w):
    """(top, left, bottom, right), each (B,), of boxes with sides sqrt(1 - lam) times the image's, clipped at its border.

    Half a side is rounded down on both sides of the center, as in timm 0.4.12; in later releases of timm odd sides are one pixel longer.
    """
    side = jnp.sqrt(1 - lam)
    half = jnp.stack([jnp.floor(h * side), jnp.floor(w * side)], -1).astype(jnp.int32) // 2
    last = jnp.array([h, w])
    low, high = jnp.clip(centers - half, 0, last), jnp.clip(centers + half, 0, last)
    return low[:, 0], low[:, 1], high[:, 0], high[:, 1]


def _beta(key, a):
    return jax.random.beta(key, a, a) if a else jnp.ones(())


def _between(i, low, high):
    return (i >= low[:, None]) & (i < high[:, None])
