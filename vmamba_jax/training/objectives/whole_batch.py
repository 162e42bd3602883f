"""Weighted means and batch normalization over a batch that is sharded over devices.

A batch may have "weight" (rows,) >= 0, how much each example counts; rows of weight 0, such as the padding of a short batch
(`parallel.weigh_padding`), do not affect loss, metrics, gradients or running statistics.
"""
import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmamba_jax.models.dense import layers as dense

STATISTICS = ("mean", "var")


def weighted(batch, axis_name=None):
    """The batch, its weights (if any) scaled to mean 1 over all devices.

    `pmean` over the devices of each one's `mean` is then the mean over the whole batch.
    """
    if "weight" not in batch:
        return batch
    average = batch["weight"].mean(dtype=jnp.float32)
    return {**batch, "weight": batch["weight"] / (average if axis_name is None else jax.lax.pmean(average, axis_name))}


def mean(values, weight=None):
    """Mean of values (b,), one per example, weighted by `weight` (b,); None: equal weights."""
    return values.mean() if weight is None else (weight * values).mean()


def batch_norm(axis_name=None, weight=None):
    """A context in which every batch norm traced in training mode, Flax's or a dense head's, takes its statistics from the whole batch.

    The running statistics are updated with the statistics used for normalization, so they are the same on every device. Flax's own
    `axis_name` with `mask` averages the devices as if each had equally many rows, and a device without any row gives nan.
    Every such layer has a mean over the devices, so all of them must call the model equally often.

    Args:
        axis_name: the mapped axis whose devices hold the batch; None: one device.
        weight: (rows,) of this device's examples, of mean 1 over all devices; None: equal weights.
    """
    if axis_name is None and weight is None:
        return contextlib.nullcontext()
    return nn.intercept_methods(functools.partial(_intercept, axis_name, weight))


def _intercept(axis_name, weight, call, args, kwargs, context):
    norm = context.module
    if isinstance(norm, dense.BatchNorm):
        return _intercept_dense(axis_name, weight, call, args, kwargs, norm)
    if not isinstance(norm, nn.BatchNorm) or context.method_name != "__call__" or norm.is_initializing() or _running(norm, *args, **kwargs):
        return call(*args, **kwargs)
    x, before = args[0], [norm.get_variable("batch_stats", name) for name in STATISTICS]
    weights = _row_weights(weight, x)
    now = _statistics(norm, x, axis_name, weights)
    for name, value in zip(STATISTICS, now, strict=True):
        norm.put_variable("batch_stats", name, value)
    y = norm.clone(parent=norm.scope, use_running_average=True)(x)
    for name, old, value in zip(STATISTICS, before, now, strict=True):
        norm.put_variable("batch_stats", name, norm.momentum * old + (1 - norm.momentum) * value)
    # An attack sums its losses without weights: a row of weight 0 must not affect the others through the statistics.
    return y if weights is None else jnp.where(weights > 0, y, jax.lax.stop_gradient(y))


def _intercept_dense(axis_name, weight, call, args, kwargs, norm):
    x, train = args
    if not train or norm.is_initializing():
        return call(*args, **kwargs)
    before = [norm.get_variable("batch_stats", name) for name in STATISTICS]
    weights = _row_weights(weight, x)
    mean, var = _statistics(norm, x, axis_name, weights)
    # Rows of weight 0 do not count; rows of several weights count as their effective number, (sum w)^2 / sum w^2.
    sums = jnp.stack([jnp.asarray(len(x), jnp.float32)] * 2 if weights is None else [weights.sum(), (weights * weights).sum()])
    total, squares = sums if axis_name is None else jax.lax.psum(sums, axis_name)
    count = total * total / squares * (x.size // x.shape[-1] // len(x))
    for name, value in zip(STATISTICS, (mean, var), strict=True):
        norm.put_variable("batch_stats", name, value)
    y = norm.clone(parent=norm.scope)(x, False)
    for name, old, value in zip(STATISTICS, before, (mean, var * count / (count - 1)), strict=True):
        norm.put_variable("batch_stats", name, dense.KEPT * old + (1 - dense.KEPT) * value)
    return y if weights is None else jnp.where(weights > 0, y, jax.lax.stop_gradient(y))


def _running(norm, x, use_running_average=None, *, mask=None):
    if mask is not None:
        raise ValueError("mask of a BatchNorm's call: expected None, and \"weight\" in the step's batch instead")
    return nn.merge_param("use_running_average", norm.use_running_average, use_running_average)


def _row_weights(weight, x):
    """The weights (rows,) in a shape that broadcasts against x (rows, ...); None: no weights."""
    if weight is None:
        return None
    if len(weight) != len(x):
        raise ValueError(f"weight of {len(weight)} rows: expected {len(x)}, one for each row of a BatchNorm's input")
    return weight.reshape(-1, *[1] * (x.ndim - 1))


def _statistics(norm, x, axis_name, weights):
    """Mean and variance (channels,), at least float32, as Flax computes them: E[x^2] - E[x]^2."""
    kept = {axis % x.ndim for axis in jax.tree.leaves(getattr(norm, "axis", -1))}
    axes = tuple(axis for axis in range(x.ndim) if axis not in kept)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    counted = x if weights is None else weights * x
    moments = jnp.stack([counted.mean(axes), (counted * x).mean(axes)])
    mean, square = moments if axis_name is None else jax.lax.pmean(moments, axis_name)
    return mean, jnp.maximum(0.0, square - mean * mean)
