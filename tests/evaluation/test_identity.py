"""The identity of a callable: the same in every process, other for other code, arrays and values; and what cannot be known is named."""
import functools
import json
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from vmamba_jax import evaluation
from vmamba_jax.evaluation import identity

SOURCE = '''
import dataclasses, functools, json, sys
import flax.linen as nn, jax, flax.nnx as nnx, jax.numpy as jnp, numpy as np
from jax.tree_util import Partial
from vmamba_jax import models
from vmamba_jax.evaluation import identity

WEIGHTS, SCALE = np.arange(12, dtype=np.float32).reshape(4, 3), 2.0

def helper(x):
    return jnp.tanh(x) * SCALE

def plain(x):
    return helper(x.reshape(len(x), -1)) @ WEIGHTS

def closing(weights):
    return lambda x: x.reshape(len(x), -1) @ weights

@dataclasses.dataclass(frozen=True)
class Callable:
    width: int
    act: object = jax.nn.gelu
    def __call__(self, x):
        return self.act(x) * self.width

class Stateful:
    def __init__(self):
        self.weights, self.names = {"a": np.ones(3)}, {"x", "y", "z"}
    def __call__(self, x):
        return x @ self.weights["a"]

class Slotted(Stateful):
    __slots__ = ("hidden",)
    def __init__(self):
        super().__init__()
        self.hidden = np.full(3, 7.0)

class Net(nn.Module):
    width: int = 3
    norm: object = nn.LayerNorm
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.width)(self.norm()(x))

net = Net()
variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.5, x.dtype), net.init(jax.random.key(0), jnp.ones((1, 4))))
FOUND = {
    "plain": plain, "closing": closing(WEIGHTS), "jitted": jax.jit(plain), "partial": functools.partial(plain), "leaves": Partial(plain, jnp.ones(2)),
    "record": Callable(3), "object": Stateful(), "slots": Slotted(), "variable": nnx.Param(jnp.full(3, 9.0)), "structure": jax.tree.structure({"a": 1, "b": (2, None)}), "method": Stateful().__call__, "bound": lambda x: net.apply(variables, x),
    "classifier": Partial(jax.jit(models.Classifier(net, 0.5, 0.5).__call__), variables), "library": jnp.sin, "key": Partial(plain, jax.random.key(3))}
'''


def digests(source):
    scope = {"__name__": "__main__"}
    exec(compile(source, "script.py", "exec"), scope)
    return {name: identity.of(value) for name, value in scope["FOUND"].items()}


def test_equal_in_another_process():
    code = SOURCE + "print(json.dumps({name: identity.of(value) for name, value in FOUND.items()}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    theirs = {name: tuple(value) for name, value in json.loads(done.stdout).items()}
    ours = digests(SOURCE)
    assert all(unknown == [] for _, unknown in ours.values()) and len({each for each, _ in ours.values()}) == len(ours)
    assert {name: (each, unknown) for name, (each, unknown) in ours.items()} == theirs


@pytest.mark.parametrize("old, new, changed", [
    ("jnp.tanh(x)", "jnp.sinh(x)", {"plain", "jitted", "partial", "leaves", "key"}),
    ("SCALE = np.arange(12, dtype=np.float32).reshape(4, 3), 2.0", "SCALE = np.arange(12, dtype=np.float32).reshape(4, 3), 2.5",
     {"plain", "jitted", "partial", "leaves", "key"}),
    ("np.arange(12,", "1 + np.arange(12,", {"plain", "closing", "jitted", "partial", "leaves", "key"}),
    ("* self.width", "+ self.width", {"record"}), ("Callable(3)", "Callable(4)", {"record"}), ("jax.nn.gelu", "jax.nn.relu", {"record"}),
    ("np.ones(3)", "np.zeros(3)", {"object", "method", "slots"}), ("full(3, 7.0)", "full(3, 6.0)", {"slots"}), ("full(3, 9.0)", "full(3, 8.0)", {"variable"}),
    ('"b": (2, None)', '"b": [2, None]', {"structure"}), ("full(x.shape, 0.5", "full(x.shape, 0.25", {"bound", "classifier"}),
    ("norm: object = nn.LayerNorm", "norm: object = nn.RMSNorm", {"bound", "classifier"}), ("(net, 0.5, 0.5)", "(net, 0.5, 0.25)", {"classifier"}),
    ("jnp.sin,", "jnp.cos,", {"library"}), ("key(3)", "key(4)", {"key"})])
def test_each_part_counts(old, new, changed):
    assert old in SOURCE
    before, after = digests(SOURCE), digests(SOURCE.replace(old, new))
    assert {name for name in before if before[name] != after[name]} == changed


def test_what_cannot_be_known_is_named(tmp_path):
    hidden = iter(range(3))
    found, unknown = identity.of(lambda x: (hidden, x))
    assert unknown == ["a value of type builtins.range_iterator"] and found != identity.of(lambda x: x)[0]
    images, labels = np.zeros((2, 2, 2, 3), np.float32), np.zeros(2, np.int32)

    def logits_fn(x):
        return jnp.zeros((len(x), 10)).at[:, 0].set(1 if hidden else 0)
    run = functools.partial(evaluation.robust_accuracy, logits_fn, (images, labels), "autoattack", eps=0.0, steps=2, queries=2, n_targets=1,
                            key=jax.random.key(0), state=tmp_path / "state.npz")
    with pytest.warns(UserWarning, match="uses a value of type builtins.range_iterator, which no other process can recognize.*model_id=NAME"):
        run()
    (tmp_path / "state.npz").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model_id="mine")
        run(model_id="mine")
    with pytest.raises(ValueError, match="of another evaluation .*model: 'mine .*' in the file, 'other"):
        run(model_id="other")
    with pytest.raises(TypeError, match="model_id=3: expected a name, or None"):
        run(model_id=3)


def test_catalog_models_are_known():
    for name in ("vmamba_tiny", "vim_tiny", "swin_tiny", "resnet18", "convnext_tiny", "mambaout_tiny", "spatialmamba_tiny", "mambavision_tiny", "deit_tiny", "efficientnet_lite0"):
        model = vmamba_jax.create_model(name)
        assert identity.of(model)[1] == [] and identity.of(model) == identity.of(vmamba_jax.create_model(name))
        assert identity.of(model) != identity.of(model.clone(num_classes=7))
