"""The training step of a config, compiled ahead of time for chips that this machine does not have."""
import contextlib
import re
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import pallas_kernels
from experiments import tpu_cycles
from experiments.common import build
from experiments.common.cli import ConfigError, checking
from pallas_kernels.tpu.launch import without_bodies
from vmamba_jax import data, parallel, training
from vmamba_jax.models import catalog
from vmamba_jax.training import trainer

EFFORTS = ("low", "full")  # of compiles for a TPU, see `compile_step`
LOW = {"exec_time_optimization_effort": -1.0}
IMAGENET = 1_281_167       # training images of ImageNet-1k
WITHOUT_ROOT = ("folder", "imagenet", "webdataset", "tfrecord", "array_record")  # sets of photos that are described if the config has no root
GIB = {"K": 2 ** 10, "M": 2 ** 20, "G": 2 ** 30, "T": 2 ** 40, "": 1}


class TooLarge(Exception):
    """The program needs more memory than the chip has. bytes: what it needs, as the compiler says; None: it does not say."""

    def __init__(self, message, needed):
        super().__init__(message)
        self.bytes = needed


class Described(data.Source):
    """A set of which only the size is known; it has no images."""

    def __init__(self, split, images, classes, image_shape):
        super().__init__("described", split, map(str, range(classes)), image_shape)
        self._n = images

    def __len__(self):
        return self._n

    def gather(self, indices):
        raise TypeError("a described data set: expected no request for its images")

    @property
    def labels(self):
        return np.zeros(self._n, np.int32)

    @property
    def fingerprint(self):
        return "described"


class Program(NamedTuple):
    """A compiled training step.

    Attributes:
        text: its HLO.
        memory: bytes per chip: "arguments", "outputs", "aliased" (outputs in the arguments' buffers), "temporaries", "code", and "total".
        seconds: of tracing, lowering and compiling, and "cpu": of the processor, over all cores.
        compiled: the executable, which runs where the devices exist.
    """
    text: str
    memory: dict
    seconds: dict
    compiled: Any


def source(images=0):
    """A function (config, split, limit) -> source: the config's own set, or a `Described` one.

    Args:
        images: number of training images of the description; 0: the config's own set, and ImageNet's number if that has no root.
    """
    def load(config, split, limit=0):
        if not images and not (config.data.name in WITHOUT_ROOT and not config.data.root):
            return build.source(config, split, limit)
        with checking("config.model"):
            fields, entry = config.model.overrides.to_dict(), catalog.entry(config.model.name)
        size = config.data.options.get("size") or config.transform.get("size") or entry.image_size
        n = (images or IMAGENET) if split == "train" else 50_000
        classes = fields.get("num_classes") or entry.fields.get("num_classes") or getattr(entry.family, "num_classes", 1000)
        return Described(split, min(n, limit) if limit else n, classes, (size, size, fields.get("in_channels", 3)))
    return load


def mesh(slice):
    """(mesh, platform to lower for, note) of a `chips.Slice`: the absent TPU's devices, or CPU devices for a GPU or this machine."""
    if slice.chip.platform == "tpu":
        if not tpu_cycles.prepare_compiler():
            raise ConfigError("--topology: libtpu is not installed: make install-aot, then TPU_LIBRARY_PATH=.venv/aot/libtpu/libtpu.so; or pip install libtpu "
                              "(extra aot)")
        from jax.experimental import topologies
        with checking(f"--topology={slice.name}"):
            try:
                devices = topologies.get_topology_desc(platform="tpu", topology_name=slice.name).devices
            except RuntimeError as error:
                raise ValueError(f"libtpu {tpu_cycles.library_version()} refuses it: {str(error).splitlines()[0]}") from error
        return parallel.data_mesh(devices), "tpu", f"compiled by libtpu {tpu_cycles.library_version()}"
    devices = jax.devices("cpu")[:min(slice.chips, jax.device_count("cpu"))]
    return parallel.data_mesh(devices), "cpu", f"counted in the program of {len(devices)} CPU devices, whose memory and fusions are not a GPU's"


def arguments(run, state=None):
    """Shapes, dtypes and shardings of (state, batch, key data) of a `build.Run`'s step; nothing is computed. state: that of an earlier call."""
    init_key, key = build.keys(run.config)

    def begin(key):
        state = training.create_state(run.classifier, run.optimizer, key, run.train.image_shape, ema_decay=build.ema_decay(run.config),
                                      variables=None)
        return run.step.begin(state, run.train.image_shape, run.config.batch_size)

    replicated, by_row = NamedSharding(run.mesh, P()), NamedSharding(run.mesh, P(run.mesh.axis_names[0]))
    laid = lambda tree, sharding: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
    n = run.config.batch_size
    batch = {"image": jax.ShapeDtypeStruct((n, *run.train.image_shape), jnp.float32), "label": jax.ShapeDtypeStruct((n,), jnp.int32)}
    if state is None:
        with checking("config.sharding"):
            state = training.sharding.template(jax.eval_shape(begin, init_key), run.mesh, run.config.sharding)
            training.sharding.check(run.step, state.params, run.mesh, run.config.sharding)
    return state, laid(batch, by_row), laid(jax.eval_shape(jax.random.key_data, key), replicated)


def compile_step(run, platform, args=None, effort="full"):
    """The `Program` of a `build.Run` whose mesh has devices of a platform.

    With low effort, the TPU's compiler keeps fewer arrays in vector memory, and Pallas kernels have their operands, results and blocks but no bodies.

    Args:
        run: `build.Run`.
        platform: "tpu" or "cpu".
        args: of `arguments`; None: they are made.
        effort: one of `EFFORTS`, for a TPU.

    Raises:
        TooLarge: it does not fit the chip's memory.
    """
    _, key = build.keys(run.config)
    args = args or arguments(run)
    low = platform == "tpu" and effort == "low"
    step, marks = trainer._program(run.step, run.mesh, jax.random.key_impl(key), run.config.sharding), [time.perf_counter()]
    since = time.process_time()
    with pallas_kernels.platforms(platform) if platform != "cpu" else contextlib.nullcontext(), without_bodies() if low else contextlib.nullcontext():
        traced = step.trace(*args)
        marks.append(time.perf_counter())
        lowered = traced.lower(lowering_platforms=(platform,))
    marks.append(time.perf_counter())
    try:
        compiled = lowered.compile(compiler_options=LOW if low else None)
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" not in text and "memory" not in text:
            raise
        found = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", text)
        raise TooLarge(text.splitlines()[0], float(found[1]) * GIB[found[2]] if found else None) from error
    marks.append(time.perf_counter())
    seconds = {name: round(after - before, 1) for name, before, after in zip(("trace", "lower", "compile"), marks, marks[1:], strict=False)}
    seconds["cpu"] = round(time.process_time() - since, 1)
    return Program(compiled.as_text(), memory(compiled.memory_analysis()), seconds, compiled)


def memory(stats):
    """`Program.memory` of XLA's statistics."""
    found = {"arguments": stats.argument_size_in_bytes, "outputs": stats.output_size_in_bytes, "aliased": stats.alias_size_in_bytes,
             "temporaries": stats.temp_size_in_bytes, "code": stats.generated_code_size_in_bytes}
    return found | {"total": sum(found.values()) - 2 * found["aliased"]}


def parameters(state):
    """Number of trained weights of a state's shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def changed(config, batch, remat, dtype="", blocks=None):
    """A copy of a config with another batch size, and with the model's fields `remat`, `dtype` and `depth` set where they are given."""
    copy = config.copy_and_resolve_references()
    copy.batch_size = batch
    with copy.model.unlocked():
        copy.model.overrides = {**copy.model.overrides.to_dict(), **({"remat": True} if remat else {}), **({"dtype": dtype} if dtype else {}),
                                  **({"depth": blocks} if blocks else {})}
    return copy
