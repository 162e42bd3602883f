"""Correlation of hidden states with a prediction: external maps over the image, internal vectors over the channels, templates and losses.

A state's values a and gradients g are (b, K, L, D): K scan directions, L tokens in one order for all directions, D channels. g is the gradient of
the true class's logit. Both rectifiers are those of the released program; the paper's poster omits them.

Source: Hu et al., "Vision Mamba Mender", NeurIPS 2024, equations 2 to 9, and the authors' program.
"""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks

EPS = 1e-5
ALPHA, BETA = 0.5, 0.3  # thresholds of external maps and of internal vectors, as released


def external_tokens(values, gradients):
    """External correlation of every token, (b, L): the mean over channels of relu(a) times the mean over tokens of relu(g).

    Directions are summed before the rectifiers. The mean of g is over all tokens, class tokens included.

    Args:
        values, gradients: (b, K, L, D).
    """
    a, g = (jax.nn.relu(x.sum(1)) for x in (values, gradients))
    return (a * g.mean(1, keepdims=True)).mean(-1)


def external_maps(tokens, grid, size, class_positions=()):
    """Tokens' correlation as maps over the image, (b, H, W): class tokens removed, then resized bilinearly (align_corners=False, no antialias).

    Args:
        tokens: (b, L), in raster order.
        grid: rows and columns of the tokens.
        size: (H, W) of the image.
        class_positions: positions of the class tokens among the L.

    Raises:
        ValueError: rows * columns differs from the number of other tokens.
    """
    kept = np.delete(np.arange(tokens.shape[1]), np.asarray(class_positions, int))
    if len(kept) != grid[0] * grid[1]:
        raise ValueError(f"grid={tuple(grid)}: expected {len(kept)} tokens, those of the state without its class tokens")
    maps = tokens[:, kept].reshape(-1, *grid)
    return jax.image.resize(maps, (len(maps), *size), "bilinear", antialias=False)


def normalized(maps, quantized=False):
    """Maps (b, H, W) scaled to [0, 1], each by its own range; a constant map becomes 0.

    Args:
        quantized: round down to multiples of 1/255, as the released program's maps are after their PNG files.
    """
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    scaled = jnp.where(high > low, (maps - low) / jnp.where(high > low, high - low, 1), 0)
    return jnp.floor(scaled * 255) / 255 if quantized else scaled


def internal_vectors(values, gradients, class_positions=()):
    """Internal correlation of every channel, (b, K, D), one vector per direction: relu(a) relu(g) at the class token.

    Without a class token it is the mean over all tokens; with several, the mean over these.

    Args:
        values, gradients: (b, K, L, D).
        class_positions: positions of the class tokens among the L.
    """
    if len(class_positions):
        values, gradients = (x[:, :, np.asarray(class_positions, int)] for x in (values, gradients))
    return (jax.nn.relu(values) * jax.nn.relu(gradients)).mean(2)


def unit_range(vectors):
    """Vectors (..., D) scaled to [0, 1) over D, with 1e-5 in the denominator."""
    low, high = vectors.min(-1, keepdims=True), vectors.max(-1, keepdims=True)
    return (vectors - low) / (high - low + EPS)


def template(vectors, beta=BETA):
    """A class's template (..., D) of 0 and 1: the channels whose mean over samples, scaled to [0, 1), exceeds beta.

    Args:
        vectors: (samples, ..., D), of samples that the model classifies with high confidence, not scaled.
        beta: threshold in [0, 1).
    """
    checks.number("beta", beta, low=0, below=1)
    return (unit_range(vectors.mean(0)) > beta).astype(vectors.dtype)


def external_loss(maps, foreground):
    """Correlation outside the foreground per image, (b,): the sum over pixels of the map, neither scaled nor thresholded.

    Args:
        maps: (b, H, W), of `external_maps`, summed over states.
        foreground: (b, H, W) in {0, 1}; all 1 for an image without annotation, whose loss is then 0.
    """
    return (maps * (1 - foreground)).sum((1, 2))


def internal_loss(vectors, templates):
    """Correlation outside the class's template per image, (b,): the mean over channels, summed over directions.

    Args:
        vectors: (b, K, D), of `internal_vectors`.
        templates: (b, K, D) in {0, 1}, the template of each image's class.
    """
    return (vectors * (1 - templates)).mean(-1).sum(-1)
