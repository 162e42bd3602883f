"""One batch over many devices: what averages over examples averages over all of them, each counted by its weight.

A batch may have "weight" (rows,) >= 0, how much each example counts; rows of weight 0, such as those that fill up a short batch
(`parallel.weigh_padding`), leave no trace in loss, metrics, gradients and running statistics.
"""
import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

STATISTICS = ("mean", "var")


def weighted(batch, axis_name=None):
    """The batch with its weights, if it has any, scaled to mean 1 over all devices.

    `pmean` over the devices of each one's `mean` is then the mean over the whole batch.
    """
    if "weight" not in batch:
        return batch
    average = batch["weight"].mean(dtype=jnp.float32)
    return {**batch, "weight": batch["weight"] / (average if axis_name is None else jax.lax.pmean(average, axis_name))}


def mean(values, weight=None):
    """Mean of one value an example, (b,), each counted by its weight (b,) or all alike."""
    return values.mean() if weight is None else (weight * values).mean()


def batch_norm(axis_name=None, weight=None):
    """A context within which every `nn.BatchNorm` that is traced in training mode takes its statistics from the whole batch.

    axis_name: the mapped axis whose devices hold the batch; None: one device. weight: (rows,) of this device's examples, of mean 1 over all
    devices; None: all count alike. The running statistics get what was normalised with, so they too are alike on every device. Flax's own
    `axis_name` with `mask` averages the devices as if each had equally many rows, and one without any gives nan.

    A mean crosses the devices at every such layer, so all of them must call the model equally often.
    """
    if axis_name is None and weight is None:
        return contextlib.nullcontext()
    return nn.intercept_methods(functools.partial(_intercept, axis_name, weight))


def _intercept(axis_name, weight, call, args, kwargs, context):
    norm = context.module
    if not isinstance(norm, nn.BatchNorm) or context.method_name != "__call__" or norm.is_initializing() or _running(norm, *args, **kwargs):
        return call(*args, **kwargs)
    x, before = args[0], [norm.get_variable("batch_stats", name) for name in STATISTICS]
    share = _share(weight, x)
    now = _statistics(norm, x, axis_name, share)
    for name, value in zip(STATISTICS, now, strict=True):
        norm.put_variable("batch_stats", name, value)
    y = norm.clone(parent=norm.scope, use_running_average=True)(x)
    for name, old, value in zip(STATISTICS, before, now, strict=True):
        norm.put_variable("batch_stats", name, norm.momentum * old + (1 - norm.momentum) * value)
    # An attack sums its losses without weights: a row that does not count must not move the others through the statistics either.
    return y if share is None else jnp.where(share > 0, y, jax.lax.stop_gradient(y))


def _running(norm, x, use_running_average=None, *, mask=None):
    if mask is not None:
        raise ValueError("a BatchNorm is called with a mask: expected the step's batch to have \"weight\" instead")
    return nn.merge_param("use_running_average", norm.use_running_average, use_running_average)


def _share(weight, x):
    """The weights (rows,) in the shape that multiplies x (rows, ...); None for none."""
    if weight is None:
        return None
    if len(weight) != len(x):
        raise ValueError(f"a BatchNorm sees {len(x)} rows, but the batch has {len(weight)} weights: expected one each")
    return weight.reshape(-1, *[1] * (x.ndim - 1))


def _statistics(norm, x, axis_name, share):
    """Mean and variance (channels,), at least float32, as Flax computes them: E[x^2] - E[x]^2."""
    kept = {axis % x.ndim for axis in jax.tree.leaves(norm.axis)}
    axes = tuple(axis for axis in range(x.ndim) if axis not in kept)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    counted = x if share is None else share * x
    moments = jnp.stack([counted.mean(axes), (counted * x).mean(axes)])
    mean, square = moments if axis_name is None else jax.lax.pmean(moments, axis_name)
    return mean, jnp.maximum(0.0, square - mean * mean)
