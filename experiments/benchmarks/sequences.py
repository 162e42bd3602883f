"""Sequence layers: forward pass and input gradient at several lengths, beside the same layer with the same weights in plain torch.

Layers of one long convolution have two passes more: `kernel`, the kernel from the parameters, and `convolution`, its product with the input by the FFT.
Each record has the number of operations too, whose growth with the length does not depend on a machine's caches.
"""
import functools

import jax
import numpy as np
from jax.interpreters import partial_eval

from experiments.benchmarks import compiled, torch_sequences
from experiments.benchmarks.timing import Case, Skip
from experiments.common.cli import ConfigError
from vmamba_jax import parallel
from vmamba_jax.models import program_cost
from vmamba_jax.models.sequence import LAYERS, convolution

PARTS = ("kernel", "convolution")


def groups(config, devices, against=False):
    """Groups of one layer and pass at one length; with `against`, torch's layer is in the same group."""
    section = config.sequences
    if unknown := [name for name in section.layers if name not in LAYERS]:
        raise ConfigError(f"config.sequences.layers={unknown[0]!r}: expected some of {', '.join(LAYERS)}")
    for layer in section.layers:
        for which in section.passes:
            for length in section.lengths:
                yield [functools.partial(_case, config, layer, which, length, devices)] + [
                    functools.partial(_torch_case, config, layer, which, length)] * (against and which not in PARTS)


def layer_of(section, name, length):
    """The Linen layer of a benchmark's section, for sequences of this length."""
    return LAYERS[name](d_state=section.states, max_length=length)


def operands(config, name, length):
    """(layer, its variables, input (b, L, C), cotangent) as NumPy arrays."""
    section, rng = config.sequences, np.random.default_rng(config.seed)
    layer, shape = layer_of(section, name, length), (section.batch, length, section.width)
    variables = jax.tree.map(np.asarray, jax.jit(layer.init)(jax.random.key(config.seed), np.zeros((1, *shape[1:]), np.float32)))
    return layer, variables, rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)


def _record(section, name, backend, which, length):
    return {"what": "sequence", "name": name, "backend": backend, "pass": which, "batch": section.batch, "length": length,
            "channels": section.width, "state": section.states, "dtype": "float32"}


def program(layer, which):
    """Function (variables or kernel, {"u", "dy"}, key) -> arrays of one pass of a layer; Skip if the layer has no such pass."""
    if which in PARTS and not isinstance(layer, convolution.ConvolutionLayer):
        raise Skip(f"{type(layer).__name__} {which}: this layer is no long convolution")
    match which:
        case "forward":
            return lambda variables, x, key: layer.apply(variables, x["u"])
        case "kernel":
            return lambda variables, x, key: kernel(layer, variables, x["u"])[None]
        case "convolution":
            return lambda kernel, x, key: convolution.causal(x["u"], kernel)

    def gradient(variables, x, key):
        y, pullback = jax.vjp(lambda u: layer.apply(variables, u), x["u"])
        return y, pullback(x["dy"])
    return gradient


def kernel(layer, variables, u):
    """Kernel (C, L) of a long-convolution layer; the compiler removes what it does not need."""
    return layer.apply(variables, u, mutable=["intermediates"])[1]["intermediates"]["kernel"][0]


def operations(run, *args):
    """Arithmetic operations of a program, traced with its unused parts removed: multiply-adds as `vmamba_jax.cost` counts them, and element-wise ones."""
    closed = jax.make_jaxpr(run)(*args)
    used, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return sum(program_cost.count(used, arithmetic=True)[0].values())


def _case(config, name, which, length, devices):
    layer, variables, u, dy = operands(config, name, length)
    run, mesh = program(layer, which), compiled.mesh_for(len(u), devices)
    tree, x = (jax.jit(kernel, static_argnums=0)(layer, variables, u) if which == "convolution" else variables), {"u": u, "dy": dy}
    record = _record(config.sequences, name, "ours", which, length) | {"arithmetic": operations(run, tree, x, None)}
    return compiled.batch_case(run, parallel.replicate(tree, mesh), x, record, mesh)


def _torch_case(config, name, which, length):
    layer, variables, u, dy = operands(config, name, length)
    if name not in torch_sequences.LAYERS:
        raise Skip(f"{name} torch {which}: no such layer in plain torch, only {', '.join(torch_sequences.LAYERS)}")
    run = torch_sequences.program(name, variables, u, dy, which)
    return Case(_record(config.sequences, name, "torch", which, length) | {"devices": 1}, run, wait=lambda out: None)
