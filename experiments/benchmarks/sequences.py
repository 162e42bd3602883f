"""Sequence layers: forward pass and input gradient at several lengths, beside the same layer with the same weights in plain torch.

Layers of one long convolution have two passes more: `kernel`, the kernel from the parameters, and `convolution`, its product with the input by the FFT.
"""
import functools

import jax
import numpy as np

from experiments.benchmarks import compiled, torch_sequences
from experiments.benchmarks.timing import Case, Skip
from experiments.common.cli import ConfigError
from vmamba_jax import parallel
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
                if which in PARTS:
                    yield [functools.partial(_part_case, config, layer, which, length, devices)]
                    continue
                yield [functools.partial(_case, config, layer, which, length, devices)] + [
                    functools.partial(_torch_case, config, layer, which, length)] * against


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


def _case(config, name, which, length, devices):
    layer, variables, u, dy = operands(config, name, length)
    mesh = compiled.mesh_for(len(u), devices)

    def run(variables, x, key):
        if which == "forward":
            return layer.apply(variables, x["u"])
        y, pullback = jax.vjp(lambda u: layer.apply(variables, u), x["u"])
        return y, pullback(x["dy"])
    record = _record(config.sequences, name, "ours", which, length)
    return compiled.batch_case(run, parallel.replicate(variables, mesh), {"u": u, "dy": dy}, record, mesh)


def _part_case(config, name, which, length, devices):
    layer, variables, u, _ = operands(config, name, length)
    if not isinstance(layer, convolution.ConvolutionLayer):
        raise Skip(f"{name} {which}: this layer is no long convolution")
    mesh = compiled.mesh_for(len(u), devices)

    def kernel(variables, u):
        _, states = layer.apply(variables, u, mutable=["intermediates"])  # what the kernel does not need is removed by the compiler
        return states["intermediates"]["kernel"][0]
    record = _record(config.sequences, name, "ours", which, length)
    if which == "kernel":
        return compiled.batch_case(lambda variables, x, key: kernel(variables, x["u"])[None], parallel.replicate(variables, mesh), {"u": u}, record, mesh)
    tree = parallel.replicate(jax.jit(kernel)(variables, u), mesh)
    return compiled.batch_case(lambda kernel, x, key: convolution.causal(x["u"], kernel), tree, {"u": u}, record, mesh)


def _torch_case(config, name, which, length):
    layer, variables, u, dy = operands(config, name, length)
    if name not in torch_sequences.LAYERS:
        raise Skip(f"{name} torch {which}: no such layer in plain torch, only {', '.join(torch_sequences.LAYERS)}")
    run = torch_sequences.program(name, variables, u, dy, which)
    return Case(_record(config.sequences, name, "torch", which, length) | {"devices": 1}, run, wait=lambda out: None)
