"""One small network, a 3x3 convolution of stride 2, a ReLU and a linear layer, in each framework with the same weights."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export

SIDE, CLASSES = 8, 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
_rng = np.random.default_rng(0)
KERNEL, BIAS = _rng.normal(0, 0.4, (3, 3, 3, 4)).astype(np.float32), _rng.normal(0, 0.1, 4).astype(np.float32)
DENSE, OFFSET = _rng.normal(0, 0.5, (4, 4, 4, CLASSES)).astype(np.float32), _rng.normal(0, 0.1, CLASSES).astype(np.float32)  # rows, columns, channels
PARAMS = {"conv": {"kernel": KERNEL, "bias": BIAS}, "dense": {"kernel": DENSE.reshape(-1, CLASSES), "bias": OFFSET}}
CHANNELS_FIRST = DENSE.transpose(2, 0, 1, 3).reshape(-1, CLASSES)  # for a flattened (channels, rows, columns)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        assert not train
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2), ((1, 1), (1, 1)), name="conv")(x))
        return nn.Dense(CLASSES, name="dense")(x.reshape(len(x), -1))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), (2, 2), padding=((1, 1), (1, 1)), rngs=rngs)
        self.dense = nnx.Linear(64, CLASSES, rngs=rngs)
        self.dropout = nnx.Dropout(0.9, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.dense(jax.nn.relu(self.conv(x)).reshape(len(x), -1)))


def apply(params, x):
    x = jax.lax.conv_general_dilated(x, params["conv"]["kernel"], (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(x + params["conv"]["bias"]).reshape(len(x), -1)
    return x @ params["dense"]["kernel"] + params["dense"]["bias"]


def plain(x):
    return apply(jax.tree.map(jnp.asarray, PARAMS), x)


def nnx_net():
    net = NnxNet(nnx.Rngs(0))
    net.conv.kernel[...], net.conv.bias[...], net.dense.kernel[...], net.dense.bias[...] = KERNEL, BIAS, PARAMS["dense"]["kernel"], OFFSET
    return net


def equinox_net():
    import equinox as eqx
    a, b = jax.random.split(jax.random.key(0))
    net = eqx.nn.Sequential([eqx.nn.Conv2d(3, 4, 3, 2, 1, key=a), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(64, CLASSES, key=b),
                             eqx.nn.Dropout(0.9)])
    where = lambda net: (net[0].weight, net[0].bias, net[3].weight, net[3].bias)
    return eqx.tree_at(where, net, tuple(map(jnp.asarray, (KERNEL.transpose(3, 2, 0, 1), BIAS[:, None, None], CHANNELS_FIRST.T, OFFSET))))


def haiku_net(rng=False):
    """(transform, parameters); with `rng`, a transform that takes random numbers."""
    import haiku as hk

    def forward(x):
        x = jax.nn.relu(hk.Conv2D(4, 3, 2, padding=((1, 1), (1, 1)), name="conv")(x))
        return hk.Linear(CLASSES, name="dense")(x.reshape(len(x), -1))
    transform = hk.transform(forward)
    params = {"conv": {"w": KERNEL, "b": BIAS}, "dense": {"w": PARAMS["dense"]["kernel"], "b": OFFSET}}
    return (transform if rng else hk.without_apply_rng(transform)), params


def torch_net():
    import torch
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, CLASSES), torch.nn.Dropout(0.9))
    state = {"0.weight": KERNEL.transpose(3, 2, 0, 1), "0.bias": BIAS, "3.weight": CHANNELS_FIRST.T, "3.bias": OFFSET}
    net.load_state_dict({name: torch.tensor(np.ascontiguousarray(x)) for name, x in state.items()})
    return net


def exported(path, batch=4):
    """Writes the network's StableHLO program of `batch` images, with its weights inside; differentiable once."""
    program = export.export(jax.jit(plain))(jax.ShapeDtypeStruct((batch, SIDE, SIDE, 3), jnp.float32))
    path.write_bytes(bytes(program.serialize(vjp_order=1)))
    return path
