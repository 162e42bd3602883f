"""The benchmark's sequence layers: records, table with the slope beside that of L log L, torch's layers against ours."""
import jax
import numpy as np
import pytest

from configs import benchmark as benchmark_config
from experiments import benchmark
from experiments.benchmarks import sequences, torch_sequences
from experiments.common import cli
from vmamba_jax.reports import benchmarks


def tiny(**fields):
    config = benchmark_config.get_config()
    config.parts, config.repeats, config.devices = ("sequences",), 2, 1
    config.sequences.update(layers=("dss",), lengths=(16, 32), passes=("forward",), width=4, states=4)
    config.sequences.update(fields)
    return config


def test_sequences(tmp_path):
    content = benchmark.run(tiny(), tmp_path / "sequences.json", progress=False)
    assert [(row["name"], row["length"], row["backend"], row["channels"], row["batch"]) for row in content["records"]] == [
        ("dss", length, "ours", 4, 2) for length in (16, 32)]
    for length, row in zip((16, 32), content["records"], strict=True):
        row["seconds"] = dict.fromkeys(row["seconds"], 1e-5 * length * np.log2(length))
    content["records"].append(content["records"][1] | {"backend": "torch", "seconds": dict.fromkeys(content["records"][1]["seconds"], 3.2e-3)})
    text = benchmarks.markdown([benchmarks.named("sequences", content)])
    assert "#### Sequence layer dss, forward, batch 2, 4 channels" in text and "to length to the power 1.32, its operations to the power 1." in text
    assert "| dss (torch) | 32 | 3.2 |" in text and "| dss | 32 | 1.6 | 1.6 to 1.6 | 1.6 | 0.50 |" in text
    with pytest.raises(cli.ConfigError, match="config.sequences.layers='s7': expected some of s4, dss, s5, mega, s6, transformer"):
        benchmark.run(tiny(layers=("s7",)), tmp_path / "other.json", progress=False)
    assert not (tmp_path / "other.json").exists()


def test_parts_of_a_convolution(tmp_path):
    content = benchmark.run(tiny(passes=("kernel", "convolution"), lengths=(16,), layers=("dss", "s5")), tmp_path / "parts.json", progress=False)
    assert [(row["name"], row["pass"]) for row in content["records"]] == [("dss", "kernel"), ("dss", "convolution")]
    layer, variables, u, _ = sequences.operands(tiny(), "dss", 16)
    kernel = sequences.program(layer, "kernel")(variables, {"u": u}, None)
    bare = layer.apply(variables, u, mutable=["intermediates"])[1]["intermediates"]["kernel"][0]
    np.testing.assert_array_equal(kernel[0], bare)
    convolved = sequences.program(layer, "convolution")(bare, {"u": u}, None)
    expected = [[np.convolve(u[b, :, c], bare[c])[:16] for c in range(4)] for b in range(2)]
    np.testing.assert_allclose(np.swapaxes(convolved, 1, 2), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["s4", "dss"])
def test_operations_grow_like_L_log_L(name):
    """Of the layer and its input gradient, within 0.1; of the convolution alone, within 0.02. The kernel is linear in the length or below."""
    lengths, section = (4096, 65536), tiny().sequences
    section.width, section.states = 128, 64

    def power(which):
        counted = []
        for length in lengths:
            layer, u = sequences.layer_of(section, name, length), jax.ShapeDtypeStruct((1, length, section.width), np.float32)
            tree = (jax.ShapeDtypeStruct((section.width, length), np.float32) if which == "convolution" else
                    jax.eval_shape(layer.init, jax.random.key(0), u))
            counted.append(sequences.operations(sequences.program(layer, which), tree, {"u": u, "dy": u}, None))
        return np.log(counted[1] / counted[0]) / np.log(16)
    expected = 1 + np.log(np.log(65536) / np.log(4096)) / np.log(16)
    assert abs(power("forward") - expected) < 0.1 and abs(power("gradient") - expected) < 0.1
    assert abs(power("convolution") - expected) < 0.02 and power("kernel") < 1.01


@pytest.mark.peers
@pytest.mark.parametrize("name", torch_sequences.LAYERS)
def test_torch_computes_the_same(name):
    layer, variables, u, dy = sequences.operands(tiny(), name, 20)
    y, pullback = jax.vjp(lambda u: layer.apply(variables, u), u)
    found, gradient = torch_sequences.program(name, variables, u, dy, "gradient")()
    np.testing.assert_allclose(found.detach().numpy(), y, atol=1e-5)
    np.testing.assert_allclose(gradient.numpy(), pullback(dy)[0], atol=1e-5)
    np.testing.assert_allclose(torch_sequences.program(name, variables, u, dy, "forward")().numpy(), y, atol=1e-5)
