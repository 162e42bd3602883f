"""What Patch-Fool ascends: the cross-entropy, and layer by layer the attention paid to a patch."""
import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.patch_fool import selection


def look(with_attention, images):
    """(logits, attention) of the images; ValueError if with_attention is None, TypeError unless it gives such a pair."""
    if with_attention is None:
        raise ValueError("with_attention=None: expected for mode or selection 'attention' a function images -> (logits, attention), such as "
                         "analysis.attention_fn(model, variables) gives")
    found = with_attention(images)
    if not isinstance(found, tuple) or len(found) != 2 or not hasattr(found[1], "__len__"):
        raise TypeError(f"with_attention returned {type(found).__name__}: expected (logits, attention), attention[l] being layer l's")
    return found


def cross_entropy(logits_fn, labels):
    """x -> (1, batch)."""
    evaluate = losses.objective(logits_fn, labels, "cross_entropy")
    return lambda x: evaluate(x)[0][None]


def with_paid_attention(with_attention, labels, token):
    """x -> (rows, batch): the cross-entropy, then for each layer 1 ... n / 2 - 1 of n the log of the attention paid to `token` (batch,)."""
    def evaluate(x):
        logits, attention = look(with_attention, x)
        if len(attention) < 4 or any(layer.ndim != 4 for layer in attention):
            raise ValueError(f"with_attention gives layers of shapes {[layer.shape for layer in attention]}: expected at least 4 layers of "
                             "(batch, heads, queries, keys) for mode='attention'")
        rows = [selection.paid(attention[layer], token) for layer in range(1, len(attention) // 2)]
        return jnp.concatenate([cross_entropy(lambda x: logits, labels)(x), jnp.stack(rows)])
    return evaluate


def saliency(logits_fn, images, labels, unit):
    """Magnitude of the gradient of the cross-entropy in units of `unit`, summed over the channels: (batch, H, W)."""
    gradient = losses.ascent_gradient(losses.objective(logits_fn, labels, "cross_entropy"))(images)
    return (jnp.abs(gradient.astype(unit.dtype)) * unit).sum(-1)


def gradients(evaluate, x):
    """(first row of evaluate(x), gradients of all rows (rows, batch, H, W, C)): one pass forward, then one back for each row."""
    values, pullback = jax.vjp(evaluate, x)
    zero = 0 * x.reshape(len(x), -1)[:, 0]   # made from the images: under shard_map it varies over the devices, as the values do
    return values[0], lax.map(lambda row: pullback((row[:, None] + zero).astype(values.dtype))[0], jnp.eye(len(values)))
