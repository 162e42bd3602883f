"""The benchmark's training step and its most expensive operations."""
import jax
import jax.numpy as jnp
import pytest

from configs import benchmark as benchmark_config
from experiments import benchmark
from experiments.benchmarks import operations, timing
from experiments.common import cli
from vmamba_jax.reports import benchmarks

TINY = {"name": "resnet18", "size": 8, "batch": 4, "overrides": {"stem": "cifar", "stem_width": 4, "layers": (1,), "channels": (4,), "num_classes": 10}}


def tiny(models):
    config = benchmark_config.get_config()
    config.update(parts=("training",), repeats=2, devices=2)
    config.training.models, config.training.attack.steps = models, 2
    return config


@pytest.mark.slow
def test_training(tmp_path):
    content = benchmark.run(tiny({"small": TINY}), tmp_path / "training.json", progress=False)
    (row,), notes = content["records"], content["notes"]
    assert not notes and (row["name"], row["backend"], row["batch"], row["devices"], row["attack"]) == ("small", "ours", 4, 2, "PGD-2")
    assert 0 < row["outside_model"] < 1 and row["peak_mib"] > row["temp_mib"] and row["parameters"] < 2000
    shares = [found["share"] for found in row["operations"]]
    assert len(shares) == 5 and shares == sorted(shares, reverse=True) and sum(shares) <= 1.001
    text = benchmarks.markdown([benchmarks.named("training", content)])
    assert "#### Training step on PGD-2" in text and "| small | 8 x 8 | 4 |" in text and "#### Most expensive operations" in text


@pytest.mark.parametrize("change, message", [
    ({"name": "nosuch"}, "config.training.models.small.name='nosuch': expected a name"), ({"batch": None}, "config.training.models.small: expected the field batch")])
def test_bad_model_is_named(tmp_path, change, message):
    entry = {key: value for key, value in (TINY | change).items() if value is not None}
    with pytest.raises(cli.ConfigError, match=message):
        benchmark.run(tiny({"small": entry}), tmp_path / "wrong.json", progress=False)


def test_operations_of_a_program():
    """The profile of a program: the operations inside a loop have nearly all of the time, and the loop around them is not counted twice."""
    def fn(x):
        with jax.named_scope("Model"):
            return jax.lax.fori_loop(0, 20, lambda i, x: jnp.tanh(x @ x), x)
    x = jnp.eye(384)
    program = jax.jit(lambda x: fn(x) + 1).lower(x).compile()
    case = timing.Case({"backend": "ours"}, lambda: program(x), program=program)
    found = operations.times(case)
    first = operations.most_expensive(found, 2)
    assert {entry["operation"] for entry in first} == {"Model/dot_general", "Model/tanh"} and 0.7 < sum(entry["share"] for entry in first) <= 1.001
    assert operations.share_outside(found, "Model") < 0.3 and operations.share_outside(found, "Other") == 1


@pytest.mark.parametrize("path, kind", [
    ("jit(f)/while/body/jit(__call__)/VMamba/VMamba._stage/layers_0/blocks_1/op/in_proj/dot_general", "op/in_proj/dot_general"),
    ("jit(f)/transpose(jvp(jit(__call__)))/ResNet/layer2_0/conv1/cond/branch_0_fun/conv_general_dilated", "layer/conv/conv_general_dilated, backward"),
    ("aten::addmm", "aten::addmm"), ("copy_reverse_fusion.12", "copy_reverse_fusion"), ("jit(f)/add", "add")])
def test_kind_of_an_operation(path, kind):
    assert operations.kind(path) == kind


def test_time_of_an_operation_excludes_those_inside():
    events = [(0, 10e9, "while"), (1e9, 4e9, "a"), (2e9, 3e9, "b"), (5e9, 6e9, "a"), (10e9, 11e9, "c")]
    assert sorted(map(tuple, operations._alone(events))) == [("a", 1), ("a", 2), ("b", 1), ("c", 1), ("while", 6)]
